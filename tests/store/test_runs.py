import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PARAMETER_LIMIT
from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.recipes import PRESETS
from pipeline.store import atomic, runs
from pipeline.store.runs import EpochRow, RunCard, RunResult, best_row, read_metrics, seconds_left, write_metrics


@pytest.mark.parametrize(
    "name",
    ["LATEST", "latest", "ledger", "Ledger", "pretrained", "Pretrained-x", "", ".hidden", "..", "a/b", "a b", "é"],
)
def test_a_name_that_is_taken_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--run"):
        runs.check_name(name)
    with pytest.raises(UsageError, match="--name"):
        runs.check_name(name, "--name")


@pytest.mark.parametrize("name", ["paper-1f3a9c2b", "v1.2_x", "latest-2", "my-ledger", "pretrained2"])
def test_a_plain_name_will_do(name: str) -> None:
    assert runs.check_name(name) == name


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", "é\n".encode(), b"../../etc\n", b"LATEST\n", b"a\n\n"])
def test_a_damaged_pointer_is_bad_data(tmp_path: Path, content: bytes) -> None:
    (tmp_path / runs.LATEST).write_bytes(content)
    with pytest.raises(BadData, match="LATEST names no run"):
        runs.latest(tmp_path)


def test_without_a_run_the_command_that_makes_one_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=f"run `python -m pipeline.train --models {tmp_path}` first"):
        runs.latest(tmp_path)


def test_runs_that_finish_at_once_take_turns_at_the_pointer(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other:
        with atomic.lock(tmp_path / runs.LATEST):
            waiting = other.submit(runs.point_latest, tmp_path, "mine")
            time.sleep(0.2)
            assert not (tmp_path / runs.LATEST).exists()
        waiting.result(30)
    assert runs.latest(tmp_path) == "mine"


def test_a_run_that_is_replaced_is_gone_before_a_part_of_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_folder: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    folder, card = tmp_path / "mine", RunCard("tiny", "0", PRESETS["rehearsal"])
    folder.mkdir()
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt), runs.claimed(folder, card, True, print):
        pass
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "kept"), [("report/notes.md", True), ("report/gap.png", False), ("tensorboard/a", False)]
)
def test_a_run_with_a_file_that_is_not_ours_is_kept_when_it_is_replaced(tmp_path: Path, name: str, kept: bool) -> None:
    folder, lines = tmp_path / "mine", list[str]()
    atomic.write_bytes(folder / name, b"")
    with runs.claimed(folder, RunCard("tiny", "0", PRESETS["rehearsal"]), True, lines.append):
        assert not (folder / name).exists()
    assert (tmp_path / "mine.bak" / name).exists() == kept
    assert lines == [f"{folder} holds files of yours and is kept as {folder}.bak"] * kept


@pytest.mark.parametrize(
    "changes", [{"seconds": 1e299}, {"seconds": -1.0}, {"device": "cpu\nrun fine"}, {"system": "x" * 201}]
)
def test_a_result_that_cannot_be_shown_is_none(changes: dict[str, Any]) -> None:
    result = RunResult("split", 91.0, 0.3, 10, 90.0, 20, 3, 12, 90.5, PARAMETER_LIMIT, 1.0, 1.0, "cpu", "fp32")
    assert result.submittable and not replace(result, trainable_parameters=PARAMETER_LIMIT + 1).submittable
    with pytest.raises(BadData, match=f"{next(iter(changes))} cannot be "):
        replace(result, **changes)


ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 5.0)
ROWS = [ROW, replace(ROW, epoch=2, validation_accuracy=40.0), replace(ROW, epoch=3, validation_accuracy=40.0)]


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    write_metrics(path, ROWS)
    write_metrics(path, ROWS[:2])
    assert read_metrics(path) == ROWS[:2]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    names = "epoch rate train_loss train_accuracy validation_loss validation_accuracy images_per_second seconds"
    assert list(lines[0]) == names.split()
    assert best_row(ROWS).epoch == 2  # the first of equals


def test_a_slow_first_epoch_says_nothing_of_the_time_to_go() -> None:
    slow, *rest = [replace(ROW, epoch=k, seconds=s) for k, s in ((1, 900.0), (2, 10.0), (3, 20.0))]
    assert seconds_left([slow], 80) == 79 * 900
    assert seconds_left([slow, *rest], 80) == 77 * 15


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"epoch": 1}', "\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content + "\n", encoding="latin-1")
    with pytest.raises(BadData, match=r"metrics\.jsonl is damaged"):
        read_metrics(tmp_path / "metrics.jsonl")
