"""The images on the device, and batches of them with a random crop and flip for each single image.

What torchvision's RandomCrop and RandomHorizontalFlip do on PIL images one by one, in one gather a batch.
All draws of an epoch are made at its start from (seed, epoch), so that any step can be made again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import IMAGE_SIZE
from pipeline.recipes import TrainConfig


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Batches an epoch.  The last may be smaller, as in a plain DataLoader, but never a single image.

    Batch normalisation has no statistics of one image, so that one joins the batch before.
    """
    full, rest = divmod(rows, batch_size)
    return full + (1 if rest > 1 else 0)


@dataclass(frozen=True)
class Draws:
    """An epoch's random numbers, each of shape (N,), in the order in which the images come."""

    order: Tensor  # int64, a permutation of the rows
    top: Tensor  # int64, the crop's first row in the padded image: 0 .. 2 * padding
    left: Tensor  # int64, its first column
    flip: Tensor  # bool, whether the crop is mirrored

    def to(self, device: torch.device) -> "Draws":
        """The same on another device."""
        return Draws(*(t.to(device) for t in (self.order, self.top, self.left, self.flip)))


def draw(rows: int, config: TrainConfig, epoch: int) -> Draws:
    """The draws of one epoch (0-based) on the CPU: equal arguments, equal draws, on every device."""
    # SeedSequence makes unrelated streams of related pairs; seed + epoch would share epochs between seeds.
    state = np.random.SeedSequence((config.seed, epoch)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    offsets = 2 * config.crop_padding + 1
    return Draws(
        order=torch.randperm(rows, generator=generator),
        top=torch.randint(offsets, (rows,), generator=generator),
        left=torch.randint(offsets, (rows,), generator=generator),
        flip=torch.rand(rows, generator=generator) < (0.5 if config.flip else 0.0),
    )


class TrainingImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`, padded once with black.

    Padding comes before normalisation, as it does when torchvision crops PIL images.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], config: TrainConfig, device: torch.device
    ) -> None:
        rows, pad = len(images), config.crop_padding
        self.batch_size = config.batch_size
        self.labels = torch.tensor(labels, device=device)
        padded = torch.zeros(rows, IMAGE_SIZE + 2 * pad, IMAGE_SIZE + 2 * pad, 3, dtype=torch.uint8)
        padded[:, pad : pad + IMAGE_SIZE, pad : pad + IMAGE_SIZE] = torch.tensor(images)
        # A view of all crops, (N, 2p+1, 2p+1, 32, 32, 3), which takes no memory: one index picks a crop.
        windows = padded.to(device).unfold(1, IMAGE_SIZE, 1).unfold(2, IMAGE_SIZE, 1)
        self.crops = windows.permute(0, 1, 2, 4, 5, 3)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return steps_per_epoch(len(self), self.batch_size)

    def seen(self, steps: int) -> int:
        """Images in the first `steps` batches of an epoch."""
        return len(self) if steps == self.steps else steps * self.batch_size

    def batch(self, draws: Draws, step: int) -> tuple[Tensor, Tensor]:
        """Batch `step` (0-based) of an epoch: augmented uint8 images (B, 32, 32, 3), int64 labels (B,)."""
        first, last = self.seen(step), self.seen(step + 1)
        rows = draws.order[first:last]
        images = self.crops[rows, draws.top[first:last], draws.left[first:last]]
        mirrored = draws.flip[first:last].view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(2), images), self.labels[rows]
