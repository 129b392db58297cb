"""Augmentations of a batch of uint8 images, with random numbers of its own for every image.

Each draws for all rows of an epoch at once, so that any step can be made again, and is then applied batch by
batch on the device, without making the host wait.  Those of torchvision work on one image or draw once a batch.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import IMAGE_SIZE, MEAN
from pipeline.recipes import TrainConfig
from pipeline.training.policies import AugMix, RandAugment, TrivialAugment

Drawn = dict[str, Tensor]  # random numbers by name, each of shape (rows, ...)


class Augmentation(Protocol):
    """Changes images and leaves their labels."""

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """Random numbers for `rows` images, on the CPU."""

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """uint8 (B, 32, 32, 3), 0..255 -> the same shape and type; `drawn` has the numbers of these B images."""


def chosen(config: TrainConfig) -> list[Augmentation]:
    """What `config` asks for, in the order of application; crop and flip come before (pipeline.training.batches)."""
    found: list[Augmentation] = []
    if config.policy == "trivialaugment":
        found.append(TrivialAugment())
    if config.policy == "randaugment":
        found.append(RandAugment())
    if config.policy == "augmix":
        found.append(AugMix())
    if config.cutout:
        found.append(Cutout(config.cutout))
    if config.erasing:
        found.append(RandomErasing(config.erasing))
    return found


def rectangle(top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Where rectangles lie, bool (B, 32, 32, 1), from four tensors (B,); what lies outside the image is cut off."""
    line = torch.arange(IMAGE_SIZE, device=top.device)
    rows = (line >= top[:, None]) & (line < (top + height)[:, None])
    columns = (line >= left[:, None]) & (line < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(3)


@dataclass(frozen=True)
class Cutout:
    """A grey square, its centre anywhere in the image (DeVries and Taylor 2017, arXiv:1708.04552).

    Grey is the mean pixel, which normalisation turns into zero, as the paper's squares are.
    """

    side: int  # pixels

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """The squares' centres."""
        return {"cutout": torch.randint(IMAGE_SIZE, (rows, 2), generator=generator)}

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Paint the squares."""
        top, left = (drawn["cutout"] - self.side // 2).unbind(1)
        side = torch.full_like(top, self.side)
        # Filled there: a copy from the host would make it wait.
        grey = torch.stack([images.new_full((), round(255 * mean)) for mean in MEAN])
        return torch.where(rectangle(top, left, side, side), grey, images)


@dataclass(frozen=True)
class RandomErasing:
    """With `probability` a rectangle in one random colour (Zhong et al. 2017, arXiv:1708.04896).

    Its area is 2 to 33 % of the image's, its aspect ratio 0.3 to 3.3, as torchvision's are.
    """

    probability: float

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """Whether, where, how large and in which colour."""
        uniform = torch.rand(rows, 5, generator=generator)
        area = IMAGE_SIZE**2 * (0.02 + 0.31 * uniform[:, 0])
        ratio = torch.exp(torch.log(torch.tensor(3.3)) * (2 * uniform[:, 1] - 1))
        sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).round().clamp(1, IMAGE_SIZE)
        sides *= uniform[:, 2:3] < self.probability
        corner = (uniform[:, 3:] * (IMAGE_SIZE + 1 - sides)).floor()
        return {
            "erasing": torch.cat([corner, sides], 1).long(),
            "erasing_colour": torch.randint(256, (rows, 3), generator=generator, dtype=torch.uint8),
        }

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Paint the rectangles."""
        colour = drawn["erasing_colour"][:, None, None, :]
        return torch.where(rectangle(*drawn["erasing"].unbind(1)), colour, images)
