"""TrivialAugment, RandAugment and AugMix with draws of its own for every image: what torchvision does to single images.

The draws say which operations an image gets and how strong; pipeline.training.operations carries them out.
"""

from collections.abc import Sequence
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

# AugMix leaves out what corruptions do, so that they remain unseen; its pixels are a third of the image.
AUGMIX: Ranges = {
    Operation.SHEAR_X: (0, 0.3),
    Operation.SHEAR_Y: (0, 0.3),
    Operation.TRANSLATE_X: (0, IMAGE_SIZE / 3),
    Operation.TRANSLATE_Y: (0, IMAGE_SIZE / 3),
    Operation.ROTATE: (0, 30),
    Operation.POSTERIZE: (8, 4),
    Operation.SOLARIZE: (255, 0),
}
AUGMIX_OPERATIONS = (*AUGMIX, Operation.AUTOCONTRAST, Operation.EQUALIZE)

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


@dataclass(frozen=True)
class AugMix:
    """The image blended with a mixture of chains of operations (Hendrycks et al. 2020, arXiv:1912.02781).

    Against corruptions of the hidden images.  Without the paper's consistency loss, which triples the work of a step.
    """

    chains: int = 3
    depth: int = 3  # at most this many operations a chain
    bins: int = 9  # of 31, the weakest: the paper's severity 3 of 10

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """For `rows` images on the CPU.

        policy_operation, int64, policy_magnitude, float32: (rows, chains * depth), chain after chain;
        policy_weight: float32 (rows, chains), of the chains in the mixture, from a flat Dirichlet distribution;
        policy_share: float32 (rows,), of the mixture in the result, 0..1, from a flat Beta distribution.
        """
        shape = rows, self.chains * self.depth
        bins = torch.randint(self.bins, shape, generator=generator)
        drawn = _drawn(magnitudes(AUGMIX), bins, generator, AUGMIX_OPERATIONS)
        lengths = torch.randint(1, self.depth + 1, (rows, self.chains, 1), generator=generator)
        beyond = (torch.arange(self.depth) >= lengths).view(shape)
        drawn["policy_operation"] = torch.where(beyond, int(Operation.IDENTITY), drawn["policy_operation"])
        flat = -torch.rand(rows, self.chains, generator=generator).clamp(min=1e-6).log()
        share = torch.rand(rows, generator=generator)
        return drawn | {"policy_weight": flat / flat.sum(1, keepdim=True), "policy_share": share}

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """The uint8 images (B, 32, 32, 3), on any device, after their mixtures; `drawn` holds their B draws."""
        mixture = torch.zeros(images.shape, device=images.device)
        for chain in range(self.chains):
            part = slice(chain * self.depth, (chain + 1) * self.depth)
            steps = {name: drawn[name][:, part] for name in ("policy_operation", "policy_magnitude")}
            mixture += drawn["policy_weight"][:, chain].view(-1, 1, 1, 1) * _applied(images, steps)
        return images.float().lerp(mixture, drawn["policy_share"].view(-1, 1, 1, 1)).round().to(torch.uint8)


def _drawn(
    table: Tensor, bins: Tensor, generator: torch.Generator, among: Sequence[Operation] = tuple(Operation)
) -> dict[str, Tensor]:
    """Operations and signs for bins (rows, n), with the magnitudes from the table (14, 31)."""
    operation = torch.tensor(among)[torch.randint(len(among), bins.shape, generator=generator)]
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
