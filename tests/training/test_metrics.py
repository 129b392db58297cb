from dataclasses import replace
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from pipeline.store.epochs import EpochRow
from pipeline.training.metrics import Board

ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 5.0)
ROWS = [ROW, replace(ROW, epoch=2, validation_accuracy=40.0), replace(ROW, epoch=3, validation_accuracy=40.0)]


def test_tensorboard_shows_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    for done, rows in ((0, ROWS[:2]), (1, ROWS[1:])):  # the second session does epoch 2 again
        board = Board(tmp_path, done)
        for row in rows:
            board.add(row)
        board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/accuracy")] == [1, 2, 3]
