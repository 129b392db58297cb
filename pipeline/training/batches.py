"""The images on the device, and batches of them with a random crop and flip for each single image.

What torchvision's RandomCrop and RandomHorizontalFlip do on PIL images one by one, in one gather a batch.
All random numbers of an epoch are drawn at its start from (seed, epoch), so that any step can be made again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import IMAGE_SIZE
from pipeline.errors import UsageError
from pipeline.recipes import TrainConfig
from pipeline.training import augment
from pipeline.training.augment import Drawn


def draw(rows: int, config: TrainConfig, epoch: int) -> Drawn:
    """The random numbers of one epoch (0-based) on the CPU: equal arguments, equal numbers, on every device.

    order: int64 (rows,), a permutation of the rows; all others come in that order.
    top, left: int64 (rows,), the crop's first row and column in the padded image, 0 .. 2 * padding.
    flip: bool (rows,), whether the crop is mirrored.
    And what augment.draw has.
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
    return drawn | augment.draw(rows, config, generator)


def _generator(seed: int, epoch: int) -> torch.Generator:
    # SeedSequence makes unrelated streams of related pairs; seed + epoch would share epochs between seeds.
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class TrainingImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`, padded once with black.

    Padding comes before normalisation, as it does when torchvision crops PIL images.  Of several processes each has
    all images, and takes its share of each batch.  An epoch's last batch may be smaller, as in a plain DataLoader, but
    batch normalisation has no statistics of one image: fewer than two for each process join the batch before.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], config: TrainConfig, device: torch.device,
        processes: int = 1,
    ) -> None:  # fmt: skip
        rows, pad = len(images), config.crop_padding
        self.config = config
        self.steps = rows // config.batch_size + (rows % config.batch_size >= 2 * processes)  # an epoch
        self.labels = torch.tensor(labels, device=device)
        padded = torch.zeros(rows, IMAGE_SIZE + 2 * pad, IMAGE_SIZE + 2 * pad, 3, dtype=torch.uint8)
        padded[:, pad : pad + IMAGE_SIZE, pad : pad + IMAGE_SIZE] = torch.tensor(images)
        # A view of all crops, (N, 2p+1, 2p+1, 32, 32, 3), which takes no memory: one index picks a crop.
        windows = padded.to(device).unfold(1, IMAGE_SIZE, 1).unfold(2, IMAGE_SIZE, 1)
        self.crops = windows.permute(0, 1, 2, 4, 5, 3)

    def __len__(self) -> int:
        return len(self.labels)

    def seen(self, steps: int) -> int:
        """Images in the first `steps` batches of the run."""
        epochs, step = divmod(steps, self.steps)
        return epochs * len(self) + step * self.config.batch_size

    def draw(self, epoch: int) -> Drawn:
        """The random numbers of one epoch (0-based), on the images' device."""
        return {k: v.to(self.labels.device) for k, v in draw(len(self), self.config, epoch).items()}

    def batch(self, epoch: Drawn, step: int, share: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """The share of batch `step` (0-based) of an epoch: augmented images (B, 32, 32, 3), 0..255, and their targets.

        Images are uint8, or float32 after Mixup.  Targets are int64 labels (B,), or, where images are mixed,
        float32 (B, 10).
        """
        rows = slice(self.seen(step), self.seen(step + 1))
        drawn = {name: values[rows][share] for name, values in epoch.items()}
        images = self.crops[drawn["order"], drawn["top"], drawn["left"]]
        images = torch.where(drawn["flip"].view(-1, 1, 1, 1), images.flip(2), images)
        return augment.apply(images, self.labels[drawn["order"]], drawn)


# --- which of the processed images train, and which select the best epoch ----------------------------------


@dataclass(frozen=True)
class Split:
    """Rows of the processed training images, ascending.

    `validation` is None where the labelled test_batch validates (the paper's protocol).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64] | None


def split(labels: NDArray[np.int64], config: TrainConfig) -> Split:
    """Cut the validation set out of the training images, each class in proportion.

    The cut is the same for every seed: so several runs can be compared, averaged and calibrated on images that
    none of them has learned from.

    Raises:
        UsageError: there are too few images for that, or fewer than one batch.
    """
    rows = np.arange(len(labels))
    if config.validation == "test_batch":
        result = Split(rows, None)
    else:
        from sklearn.model_selection import train_test_split  # noqa: PLC0415 - a second that preset paper need not take

        try:
            parts = train_test_split(rows, test_size=config.validation_fraction, stratify=labels, random_state=0)
        except ValueError as error:  # a class with fewer than two images, or an empty side
            raise UsageError(f"cannot cut a validation split out of {len(labels)} images: {error}") from error
        result = Split(*map(np.sort, parts))
    if config.batch_size > len(result.train):
        raise UsageError(
            f"--batch-size {config.batch_size} is larger than the training set ({len(result.train)} images)"
        )
    return result
