"""The training images on the device, in batches with a random crop and flip per image.

One gather per batch does what torchvision's RandomCrop and RandomHorizontalFlip do per image.  All random numbers of an
epoch are drawn at its start from (seed, epoch), so that any step can be repeated.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.config import IMAGE_SIZE
from pipeline.errors import UsageError
from pipeline.recipes import TrainConfig
from pipeline.training import augment
from pipeline.training.augment import Drawn


def draw(rows: int, config: TrainConfig, epoch: int) -> Drawn:
    """The random numbers of one epoch (0-based), on the CPU: equal on every device.

    order: int64 (rows,), a permutation of the rows; all others come in that order.
    top, left: int64 (rows,), the crop's first row and column in the padded image, 0 .. 2 * padding.
    flip: bool (rows,), whether the crop is mirrored.
    And those of augment.draw.
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
        # Half of the images start mirrored; then each alternates (Jordan 2024, arXiv:2404.00498).
        first = torch.rand(rows, generator=_generator(config.seed, config.epochs)) < 0.5
        drawn["flip"] = first[drawn["order"]] ^ (epoch % 2 == 1)
    return drawn | augment.draw(rows, config, generator)


def _generator(seed: int, epoch: int) -> torch.Generator:
    # SeedSequence gives independent streams; seed + epoch would share epochs between seeds.
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class TrainingImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`, zero-padded before normalisation.

    Each of several processes has all images and takes its share of each batch.  The last batch of an epoch may be
    smaller; with fewer than two images per process, which batch normalisation needs, it joins the batch before.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], config: TrainConfig, device: torch.device,
        processes: int = 1,
    ) -> None:  # fmt: skip
        rows, pad = len(images), config.crop_padding
        self.config = config
        self.steps = rows // config.batch_size + (rows % config.batch_size >= 2 * processes)  # per epoch
        self.labels = torch.tensor(labels, device=device)
        padded = nn.functional.pad(torch.tensor(images), (0, 0, pad, pad, pad, pad))
        # A view of all crops, (N, 2p+1, 2p+1, 32, 32, 3), which takes no memory.
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
        """This process's share of batch `step` (0-based): augmented images (B, 32, 32, 3), 0..255, and targets.

        Images are uint8, or float32 after Mixup.  Targets are int64 labels (B,), or for mixed images float32 (B, 10).
        """
        rows = slice(self.seen(step), self.seen(step + 1))
        drawn = {name: values[rows][share] for name, values in epoch.items()}
        images = self.crops[drawn["order"], drawn["top"], drawn["left"]]
        images = torch.where(drawn["flip"].view(-1, 1, 1, 1), images.flip(2), images)
        return augment.apply(images, self.labels[drawn["order"]], drawn)


# --- the validation split ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Rows of the processed training images, ascending.

    `validation` is None if the holdout validates (the paper's protocol).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64] | None


def split(labels: NDArray[np.int64], config: TrainConfig) -> Split:
    """Split the validation set off the training images, stratified by class.

    The split is the same for every seed, so that runs can be compared, averaged and calibrated on images that none of
    them was trained on.

    Raises:
        UsageError: there are too few images, or fewer than one batch.
    """
    rows = np.arange(len(labels))
    if config.validation == "test_batch":
        result = Split(rows, None)
    else:
        from sklearn.model_selection import train_test_split  # noqa: PLC0415 - takes a second

        try:
            parts = train_test_split(rows, test_size=config.validation_fraction, stratify=labels, random_state=0)
        except ValueError as error:  # a class with fewer than two images, or an empty side
            raise UsageError(f"cannot split a validation set off {len(labels)} images: {error}") from error
        result = Split(*map(np.sort, parts))
    if config.batch_size > len(result.train):
        raise UsageError(
            f"--batch-size {config.batch_size} is larger than the training set ({len(result.train)} images)"
        )
    return result
