"""What is known of each epoch: rows for metrics.jsonl, and the same for TensorBoard."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pipeline.store import atomic


@dataclass(frozen=True)
class EpochRow:
    """One epoch.  Accuracies in per cent, losses in nats.

    Training figures are running means over the augmented batches while the weights changed, the loss with
    label smoothing; validation figures are of the epoch's end, without smoothing.
    """

    epoch: int  # 1-based
    rate: float  # learning rate of the last step
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float  # training only
    seconds: float  # training and validation


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """The epoch with the highest validation accuracy; of equals, the first."""
    return max(rows, key=lambda row: row.validation_accuracy)


def write(path: Path, rows: Sequence[EpochRow]) -> None:
    """Write metrics.jsonl as a whole: a kill can neither tear a line nor repeat one."""
    atomic.write_bytes(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())


class Board:
    """TensorBoard's events in `folder`; epochs after `done` that an earlier session wrote are withdrawn."""

    def __init__(self, folder: Path, done: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def add(self, row: EpochRow) -> None:
        """Write one epoch's events to disk."""
        values = asdict(row)
        epoch = values.pop("epoch")
        for name, value in values.items():
            tag = name.replace("_", "/", 1) if name.startswith(("train_", "validation_")) else name
            self._writer.add_scalar(tag, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
