from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

from pipeline.store.runs import EpochRow
from pipeline.training.loop import add_events

ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 5.0)
ROWS = [ROW, replace(ROW, epoch=2, validation_accuracy=40.0), replace(ROW, epoch=3, validation_accuracy=40.0)]


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: of each tag the steps and the numbers."""
    found = EventAccumulator(str(folder), tensor_size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, _number(e.tensor_proto)) for e in found.Tensors(tag)] for tag in found.Tags()["tensors"]}


def _number(tensor: Any) -> float:
    return float([*tensor.float_val, *np.frombuffer(tensor.tensor_content, np.float32)][0])


def restart_file_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read in the order of their names, which end with a count: the tenth comes before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def test_each_epoch_is_there_once_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restart_file_count(monkeypatch)
    # The first session was killed before its first checkpoint; the third does epoch 2 again.
    for done, rows in ((0, ROWS[:1]), (0, ROWS[:2]), (1, ROWS[1:])):
        with SummaryWriter(str(tmp_path), purge_step=done + 1) as board:
            for row in rows:
                add_events(board, row)
    found = events(tmp_path)
    assert found["validation/accuracy"] == [(1, 30.0), (2, 40.0), (3, 40.0)]
