"""What a power cut can spoil: nothing is renamed before it is synced, nobody is told before the ledger knows."""

import json
import os
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipeline import train
from pipeline.store import atomic
from pipeline.store.runs import METRICS, TENSORBOARD
from tests.hostile import order_of_stages
from tests.hostile.disk_order import Watch, watching
from tests.hostile.order_of_stages import REPORT, RUN
from tests.support import clean_environment
from tests.training.tiny import SLUG, before_step, write_tiny

RAW, PROCESSED, MODEL = "data/raw/tiny", "data/processed/tiny", f"data/models/{RUN}"
CSV = f"submissions/{RUN}"
FINAL_NAMES = {
    "download": [RAW],
    "preprocess": [PROCESSED],
    "preprocess again": [PROCESSED],
    "train": [
        *(f"{MODEL}/{name}.json" for name in ("config", "execution")),
        *(2 * [f"{MODEL}/metrics.jsonl", f"{MODEL}/checkpoint.pt"]),
        *(f"{MODEL}/{name}" for name in ("metrics.jsonl", "weights.safetensors", "result.json", "manifest.json")),
        "data/models/LATEST",
    ],
    "predict": [f"{CSV}.npz", f"{CSV}.json", f"{CSV}.csv", "submissions/ledger.csv"],
    "submit": [],
    "check": [],
}


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("order")
    with mock.patch.dict(os.environ, clean_environment(), clear=True), chdir(place):
        order_of_stages.main()
    report: dict[str, Any] = json.loads((place / REPORT).read_text())
    return report


@pytest.mark.parametrize("stage", FINAL_NAMES)
def test_each_final_name_comes_in_its_turn_and_a_power_cut_spoils_none(order: dict[str, Any], stage: str) -> None:
    assert order[stage]["code"] == 0
    assert order[stage]["renamed"] == FINAL_NAMES[stage]
    assert order[stage]["violations"] == []


def test_the_ledger_is_on_disk_before_kaggle_is_told(order: dict[str, Any]) -> None:
    """That each child process finds it synced is among the violations; here: which lines it finds."""
    seen = [tuple(child) for child in order["submit"]["children"]]
    assert ("sending", 0) in seen and set(seen) <= {("predicted", 0), ("sending", 0), ("sending", 1), ("pending", 1)}
    assert order["check"]["children"][0] == ["complete", 1]


# --- the watch itself -----------------------------------------------------------------------------------------


def in_place(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/file").write_text("new")


def renamed(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/.part").write_text("new")
    (folder / "data/.part").rename(folder / "data/file")


def changed_after_its_sync(folder: Path) -> None:
    with atomic.replacing(folder / "data/file") as path, path.open("w") as stream:
        os.fsync(stream)
        stream.write("new")


def whole_folder(folder: Path) -> None:
    with atomic.replacing_folder(folder / "data/folder") as path:
        (path / "file").write_text("new")


@pytest.mark.parametrize("write", [in_place, renamed, changed_after_its_sync, whole_folder])
def test_the_watch_sees_what_is_not_synced(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_sync", lambda _path: None)
    watch = Watch(tmp_path)
    with watching(watch):
        write(tmp_path)
    assert write is in_place or any("was not synced before it became" in line for line in watch.violations)
    watch.everything_is_on_disk("at the end")
    assert "at the end: the folder of data is not synced" in watch.violations


# --- what is not synced: TensorBoard's events; and a torn file of metrics, which no checkpoint knows of -----------


def test_torn_metrics_and_events_do_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path / "processed")
    folders = ["--processed", str(tmp_path / "processed"), "--models", str(tmp_path / "models")]
    arguments = ["--competition", SLUG, "--preset", "rehearsal", "--epochs", "2", "--device", "cpu", "--run", RUN]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        before_step(patched, 1, 2, interrupt)
        assert train.main([*arguments, *folders]) == 130
    folder = tmp_path / "models" / RUN
    first = (folder / METRICS).read_text()
    for path in (folder / METRICS, *(folder / TENSORBOARD).iterdir()):
        path.write_bytes(path.read_bytes()[:-9])
    assert train.main([*arguments, *folders]) == 0
    rows = (folder / METRICS).read_text().splitlines(keepends=True)
    assert rows[0] == first
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]
    assert len(list((folder / TENSORBOARD).iterdir())) == 2
