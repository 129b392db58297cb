import json
from dataclasses import replace
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from pipeline.training.metrics import Board, EpochRow, best_row, write

ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 5.0)
ROWS = [ROW, replace(ROW, epoch=2, validation_accuracy=40.0), replace(ROW, epoch=3, validation_accuracy=40.0)]


def test_the_first_of_equally_good_epochs_is_best() -> None:
    assert best_row(ROWS).epoch == 2


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", ROWS)
    write(tmp_path / "metrics.jsonl", ROWS[:2])
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


def test_tensorboard_shows_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    for done, rows in ((0, ROWS[:2]), (1, ROWS[1:])):  # the second session does epoch 2 again
        board = Board(tmp_path, done)
        for row in rows:
            board.add(row)
        board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/accuracy")] == [1, 2, 3]
