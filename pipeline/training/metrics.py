"""What TensorBoard shows of a run: each epoch's figures, what the model is trained on, and the result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.errors import printable
from pipeline.store.runs import EpochRow

SIDE = 8  # images a side of the grid
ZOOM = 3  # pixels of the grid for one of an image
CAPTION = 14  # pixels below each image
LONGEST = 20  # characters of a class's name
MIXED = 0.1  # share of a label, from which it is in the caption

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

    def batch(self, images: Tensor, targets: Tensor, names: Sequence[str]) -> None:
        """Write the first images (B, 32, 32, 3), 0..255, of a batch with their labels: (B,), or shares (B, 10)."""
        shown = SIDE**2
        pixels = images[:shown].round().clamp(0, 255).byte().cpu().numpy()
        captions = [_caption(target, names) for target in _shares(targets[:shown].cpu().numpy())]
        self._writer.add_image("train/first batch", _grid(pixels, captions), 0, dataformats="HWC")
        self._writer.flush()

    def result(self, figures: Mapping[str, object], epochs: int) -> None:
        """Write a run's result as a table."""
        rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in figures.items()]
        # As if after a further epoch: a session that does it again withdraws it.
        self._writer.add_text("result", "\n".join(["| | |", "|---|---|", *rows]), epochs + 1)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _shown(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def _shares(targets: NDArray[np.generic]) -> NDArray[np.generic]:
    """Labels (B,) or shares (B, 10) as shares (B, 10)."""
    return np.eye(CLASSES, dtype=np.float32)[targets.astype(np.int64)] if targets.ndim == 1 else targets


def _caption(shares: NDArray[np.floating], names: Sequence[str]) -> str:
    """ "cat", or of mixed images "cat+dog", the larger share first."""
    return "+".join(
        printable(names[label], LONGEST) for label in np.argsort(-shares, kind="stable") if shares[label] >= MIXED
    )


def _grid(images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    """Images (N, 32, 32, 3) with their captions, row by row in one image (H, W, 3)."""
    width, height = ZOOM * IMAGE_SIZE + 2, ZOOM * IMAGE_SIZE + CAPTION
    rows = -(-len(images) // SIDE)
    sheet = Image.new("RGB", (SIDE * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = k % SIDE * width, k // SIDE * height
        sheet.paste(Image.fromarray(pixels.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)), (left, top))
        fitting = next(n for n in range(len(caption), -1, -1) if draw.textlength(caption[:n]) <= width)
        draw.text((left, top + ZOOM * IMAGE_SIZE), caption[:fitting], fill="black")
    return np.asarray(sheet)
