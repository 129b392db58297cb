import io
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]

from pipeline.store.runs import EpochRow
from pipeline.training.metrics import Board

ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 5.0)
ROWS = [ROW, replace(ROW, epoch=2, validation_accuracy=40.0), replace(ROW, epoch=3, validation_accuracy=40.0)]
KINDS = ("scalars", "images", "text", "custom_scalars")


def events(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """What TensorBoard shows: of each tag the steps, and what is there: numbers, text, or a picture's bytes."""
    found = EventAccumulator(str(folder), tensor_size_guidance=dict.fromkeys(KINDS, 0))
    found.Reload()
    return {tag: [(e.step, _content(e.tensor_proto)) for e in found.Tensors(tag)] for tag in found.Tags()["tensors"]}


def _content(tensor: Any) -> Any:
    values = [*tensor.float_val, *tensor.string_val] or [np.frombuffer(tensor.tensor_content, np.float32)[0]]
    return values[-1]  # before a picture's bytes come its width and height


@pytest.fixture(autouse=True)
def ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read in the order of their names, which end with a count: the tenth comes before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def batch(rows: int) -> torch.Tensor:
    """Images (rows, 32, 32, 3), each of one grey of its own."""
    return torch.arange(rows, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3)


def test_each_epoch_is_there_once_after_a_resume(tmp_path: Path) -> None:
    for done, rows in ((0, ROWS[:2]), (1, ROWS[1:])):  # the second session does epoch 2 again
        with closing(Board(tmp_path, done)) as board:
            for row in rows:
                board.add(row)
    found = events(tmp_path)
    assert found["validation/accuracy"] == [(1, 30.0), (2, 40.0), (3, 40.0)]


def test_a_run_that_begins_again_withdraws_all_and_one_that_goes_on_keeps_the_batch(tmp_path: Path) -> None:
    for fresh in (True, True, False):  # the first was killed before its first checkpoint
        with closing(Board(tmp_path, 0, fresh)) as board:
            if fresh:
                board.batch(batch(64))
            board.add(ROW)
    found = events(tmp_path)
    assert found["train/loss"] == [(1, 2.0)]
    assert len(found["train/first batch"]) == 1
    ((_, layout),) = found["custom_scalars__config__"]
    assert b"train/accuracy" in layout and b"validation/loss" in layout


def test_the_batch_is_a_grid_of_its_first_64_images(tmp_path: Path) -> None:
    with closing(Board(tmp_path, 0, fresh=True)) as board:
        board.batch(batch(100).float() + 0.4)
    ((_, image),) = events(tmp_path)["train/first batch"]
    tiles = np.asarray(Image.open(io.BytesIO(image))).reshape(8, 32, 8, 32, 3).swapaxes(1, 2)
    assert np.array_equal(tiles.reshape(64, 32, 32, 3), batch(64).numpy())
