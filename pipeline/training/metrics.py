"""What TensorBoard shows of a run: each epoch's figures, and what the model is trained on."""

from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pipeline.store.runs import EpochRow

SHOWN = 64  # images of the first batch

LAYOUT = {
    "train against validation": {
        name: ["Multiline", [f"train/{name}", f"validation/{name}"]] for name in ("accuracy", "loss")
    }
}


class Board:
    """TensorBoard's events in `folder`; what an earlier session wrote after `done` epochs is withdrawn."""

    def __init__(self, folder: Path, done: int, fresh: bool = False) -> None:
        """`fresh`: not a step is done, so what an earlier session wrote is withdrawn altogether."""
        self._writer = SummaryWriter(str(folder), purge_step=0 if fresh else done + 1)
        if fresh:
            self._writer.add_custom_scalars(LAYOUT)

    def add(self, row: EpochRow) -> None:
        """Write one epoch's events to disk."""
        values = asdict(row)
        epoch = values.pop("epoch")
        for name, value in values.items():
            tag = name.replace("_", "/", 1) if name.startswith(("train_", "validation_")) else name
            self._writer.add_scalar(tag, value, epoch)
        self._writer.flush()

    def batch(self, images: Tensor) -> None:
        """Write the first images (B, 32, 32, 3), 0..255, of a batch, as a grid."""
        pixels = images[:SHOWN].round().clamp(0, 255).byte().cpu()
        self._writer.add_images("train/first batch", pixels, 0, dataformats="NHWC")
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
