"""What TensorBoard shows of a run: each epoch's figures, what the model is trained on, and the result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.tensorboard import SummaryWriter

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.errors import printable
from pipeline.store.runs import EpochRow

GRID_SIDE = 8  # images a side of the grid
TILE = 3 * IMAGE_SIZE  # pixels a side of an image there
CAPTION_HEIGHT = 14  # pixels below each image
CAPTION_LENGTH = 16  # characters of a caption: as wide as an image
CAPTION_SHARE = 0.1  # share of a label, from which it is in the caption

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
        shares = one_hot(targets, CLASSES) if targets.dim() == 1 else targets
        pixels = images.round().clamp(0, 255).byte()
        grid = _grid(pixels[: GRID_SIDE**2].cpu().numpy(), shares[: GRID_SIDE**2].cpu().numpy(), names)
        self._writer.add_image("train/first batch", grid, 0, dataformats="HWC")
        self._writer.flush()

    def result(self, figures: Mapping[str, object], epochs: int) -> None:
        """Write a run's result as a table."""
        shown = {k: f"{value:,.2f}" if isinstance(value, float) else value for k, value in figures.items()}
        rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in shown.items()]
        # As if after a further epoch: a session that does it again withdraws it.
        self._writer.add_text("result", "\n".join(["| | |", "|---|---|", *rows]), epochs + 1)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _grid(images: NDArray[np.uint8], shares: NDArray[np.generic], names: Sequence[str]) -> NDArray[np.uint8]:
    """Images (N, 32, 32, 3), row by row in one (H, W, 3); below each "cat", or "cat+dog", the larger share first."""
    width, height = TILE + 2, TILE + CAPTION_HEIGHT
    sheet = Image.new("RGB", (GRID_SIDE * width, -(-len(images) // GRID_SIDE) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (pixels, share) in enumerate(zip(images, shares, strict=True)):
        left, top = k % GRID_SIDE * width, k // GRID_SIDE * height
        sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        labels = [label for label in np.argsort(-share, kind="stable") if share[label] >= CAPTION_SHARE]
        caption = "+".join(printable(names[label], CAPTION_LENGTH) for label in labels)
        draw.text((left, top + TILE), caption[:CAPTION_LENGTH], fill="black")
    return np.asarray(sheet)
