"""TrivialAugment and RandAugment with draws of its own for every image: what torchvision does to single images.

The draws say which operations an image gets and how strong; pipeline.training.operations carries them out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import IMAGE_SIZE
from pipeline.training.operations import Operation, operate

BINS = 31  # magnitudes of an operation, evenly spaced

# The magnitudes of an operation's weakest and strongest bin, as torchvision has them; the others have no magnitude.
Ranges = dict[Operation, tuple[float, float]]

# "Wide" in https://arxiv.org/abs/2103.10158, table 7; 32 pixels leave nothing of a CIFAR-10 image.
TRIVIAL: Ranges = {
    Operation.SHEAR_X: (0, 0.99),
    Operation.SHEAR_Y: (0, 0.99),
    Operation.TRANSLATE_X: (0, 32),
    Operation.TRANSLATE_Y: (0, 32),
    Operation.ROTATE: (0, 135),
    Operation.BRIGHTNESS: (0, 0.99),
    Operation.COLOR: (0, 0.99),
    Operation.CONTRAST: (0, 0.99),
    Operation.SHARPNESS: (0, 0.99),
    Operation.POSTERIZE: (8, 2),
    Operation.SOLARIZE: (255, 0),
}

# https://arxiv.org/abs/1909.13719; its 150 pixels belong to images of 331.
RAND: Ranges = {
    Operation.SHEAR_X: (0, 0.3),
    Operation.SHEAR_Y: (0, 0.3),
    Operation.TRANSLATE_X: (0, 150 / 331 * IMAGE_SIZE),
    Operation.TRANSLATE_Y: (0, 150 / 331 * IMAGE_SIZE),
    Operation.ROTATE: (0, 30),
    Operation.BRIGHTNESS: (0, 0.9),
    Operation.COLOR: (0, 0.9),
    Operation.CONTRAST: (0, 0.9),
    Operation.SHARPNESS: (0, 0.9),
    Operation.POSTERIZE: (8, 4),
    Operation.SOLARIZE: (255, 0),
}

SIGNED = (Operation.SHEAR_X, Operation.SHARPNESS)  # from the one to the other: half of the draws are negative


def magnitudes(ranges: Ranges) -> Tensor:
    """Each operation's magnitudes, float32 (14, 31): from weak to strong, without sign; 0 where there is none."""
    table = torch.zeros(len(Operation), BINS)
    for operation, (weakest, strongest) in ranges.items():
        table[operation] = torch.linspace(weakest, strongest, BINS)
    table[Operation.TRANSLATE_X : Operation.TRANSLATE_Y + 1].trunc_()  # whole pixels
    table[Operation.POSTERIZE].round_()  # whole bits
    return table


@dataclass(frozen=True)
class TrivialAugment:
    """One operation an image, any of the fourteen at any of its magnitudes (torchvision's TrivialAugmentWide)."""

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """For `rows` images on the CPU: policy_operation, int64, and policy_magnitude, float32, both (rows, 1)."""
        bins = torch.randint(BINS, (rows, 1), generator=generator)
        return _drawn(magnitudes(TRIVIAL), bins, generator)

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """The uint8 images (B, 32, 32, 3), on any device, after their operations; `drawn` holds their B draws."""
        return _applied(images, drawn)


@dataclass(frozen=True)
class RandAugment:
    """Some operations an image, one after the other, all of the same strength; torchvision's defaults."""

    operations: int = 2  # an image; the same one may come twice
    bin: int = 9  # of 31, 0 is the weakest

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """For `rows` images on the CPU: policy_operation, int64, policy_magnitude, float32: (rows, operations)."""
        bins = torch.full((rows, self.operations), self.bin)
        return _drawn(magnitudes(RAND), bins, generator)

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """The uint8 images (B, 32, 32, 3), on any device, after their operations; `drawn` holds their B draws."""
        return _applied(images, drawn)


def _drawn(table: Tensor, bins: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Operations and signs for bins (rows, n), with the magnitudes from the table (14, 31)."""
    operation = torch.randint(len(Operation), bins.shape, generator=generator)
    negative = torch.randint(2, bins.shape, generator=generator) == 1
    first, last = SIGNED
    magnitude = table[operation, bins]
    flipped = negative & (operation >= first) & (operation <= last)
    return {"policy_operation": operation, "policy_magnitude": torch.where(flipped, -magnitude, magnitude)}


def _applied(images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """The images after each column of operations (B, n) in turn."""
    columns = zip(drawn["policy_operation"].unbind(1), drawn["policy_magnitude"].unbind(1), strict=True)
    for operation, magnitude in columns:
        images = operate(images, operation, magnitude)
    return images
