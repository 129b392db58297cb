"""The images on the device, and batches of them with a random crop and flip for each single image.

What torchvision's RandomCrop and RandomHorizontalFlip do on PIL images one by one, in one gather a batch.
All random numbers of an epoch are drawn at its start from (seed, epoch), so that any step can be made again.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import IMAGE_SIZE
from pipeline.recipes import TrainConfig
from pipeline.training import augmentations, mixing
from pipeline.training.augmentations import Drawn


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Batches an epoch.  The last may be smaller, as in a plain DataLoader, but never a single image.

    Batch normalisation has no statistics of one image, so that one joins the batch before.
    """
    full, rest = divmod(rows, batch_size)
    return full + (1 if rest > 1 else 0)


def draw(rows: int, config: TrainConfig, epoch: int) -> Drawn:
    """The random numbers of one epoch (0-based) on the CPU: equal arguments, equal numbers, on every device.

    order: int64 (rows,), a permutation of the rows; all others come in that order.
    top, left: int64 (rows,), the crop's first row and column in the padded image, 0 .. 2 * padding.
    flip: bool (rows,), whether the crop is mirrored.
    And what the augmentations and the mixing of `config` draw for themselves.
    """
    generator = _generator(config.seed, epoch)
    offsets = 2 * config.crop_padding + 1
    drawn = {
        "order": torch.randperm(rows, generator=generator),
        "top": torch.randint(offsets, (rows,), generator=generator),
        "left": torch.randint(offsets, (rows,), generator=generator),
        "flip": torch.rand(rows, generator=generator) < (0.5 if config.flip == "random" else 0.0),
    }
    if config.flip == "alternating":
        # Half of the images begin mirrored; then each is seen from both sides in turn (Jordan 2024, arXiv:2404.00498).
        first = torch.rand(rows, generator=_generator(config.seed, config.epochs)) < 0.5
        drawn["flip"] = first[drawn["order"]] ^ (epoch % 2 == 1)
    for part in (*augmentations.chosen(config), mixing.chosen(config)):
        if part is not None:
            drawn |= part.draw(rows, generator)
    return drawn


def _generator(seed: int, epoch: int) -> torch.Generator:
    # SeedSequence makes unrelated streams of related pairs; seed + epoch would share epochs between seeds.
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class TrainingImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`, padded once with black.

    Padding comes before normalisation, as it does when torchvision crops PIL images.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], config: TrainConfig, device: torch.device
    ) -> None:
        rows, pad = len(images), config.crop_padding
        self.config = config
        self.labels = torch.tensor(labels, device=device)
        self._augmentations = augmentations.chosen(config)
        self._mixing = mixing.chosen(config)
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
        return steps_per_epoch(len(self), self.config.batch_size)

    def seen(self, steps: int) -> int:
        """Images in the first `steps` batches of an epoch."""
        return len(self) if steps == self.steps else steps * self.config.batch_size

    def draw(self, epoch: int) -> Drawn:
        """The random numbers of one epoch (0-based), on the images' device."""
        return {k: v.to(self.labels.device) for k, v in draw(len(self), self.config, epoch).items()}

    def batch(self, epoch: Drawn, step: int) -> tuple[Tensor, Tensor]:
        """Batch `step` (0-based) of an epoch: augmented images (B, 32, 32, 3), 0..255, and their targets.

        Images are uint8, or float32 after Mixup.  Targets are int64 labels (B,), or, where images are mixed,
        float32 (B, 10).
        """
        rows = slice(self.seen(step), self.seen(step + 1))
        drawn = {name: values[rows] for name, values in epoch.items()}
        images = self.crops[drawn["order"], drawn["top"], drawn["left"]]
        images = torch.where(drawn["flip"].view(-1, 1, 1, 1), images.flip(2), images)
        for augmentation in self._augmentations:
            images = augmentation.apply(images, drawn)
        labels = self.labels[drawn["order"]]
        return (images, labels) if self._mixing is None else self._mixing.apply(images, labels, drawn)
