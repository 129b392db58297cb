import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import BadData
from pipeline.store.runs import EpochRow, best_row, read_metrics, seconds_left, write_metrics

ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 5.0)
ROWS = [ROW, replace(ROW, epoch=2, validation_accuracy=40.0), replace(ROW, epoch=3, validation_accuracy=40.0)]


def test_the_first_of_equally_good_epochs_is_best() -> None:
    assert best_row(ROWS).epoch == 2


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", ROWS)
    write_metrics(tmp_path / "metrics.jsonl", ROWS[:2])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert list(json.loads(lines[0])) == [
        "epoch",
        "rate",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "images_per_second",
        "seconds",
    ]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    write_metrics(tmp_path / "metrics.jsonl", ROWS)
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS


def test_a_slow_first_epoch_says_nothing_of_the_time_to_go() -> None:
    slow, *rest = [replace(ROW, epoch=k, seconds=s) for k, s in ((1, 900.0), (2, 10.0), (3, 20.0))]
    assert seconds_left([slow], 80) == 79 * 900
    assert seconds_left([slow, *rest], 80) == 77 * 15


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"epoch": 1}', "\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(content + "\n", encoding="latin-1")
    with pytest.raises(BadData, match=r"metrics\.jsonl is damaged"):
        read_metrics(tmp_path / "metrics.jsonl")
