"""A run's figures for TensorBoard."""

from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pipeline.store.runs import EpochRow


class Board:
    """TensorBoard events in `folder`; events of an earlier session after `done` epochs are purged."""

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
