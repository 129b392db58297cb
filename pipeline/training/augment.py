"""Augmentations of a batch of uint8 images, with random numbers of its own for every image.

Each draws for all rows of an epoch at once, so that any step can be made again, and is then applied batch by
batch on the device, without making the host wait.  Those of torchvision work on one image or draw once a batch.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.config import CLASSES, IMAGE_SIZE, MEAN
from pipeline.recipes import TrainConfig

Drawn = dict[str, Tensor]  # random numbers by name, each of shape (rows, ...)


class Augmentation(Protocol):
    """Changes the images of a batch; if it mixes them, their targets as well."""

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """Random numbers for `rows` images, on the CPU."""

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Augment uint8 images (B, 32, 32, 3), 0..255, with int64 labels (B,); `drawn` has the numbers of these B.

        Returns:
            Images of that shape, and the labels, or of mixed images float32 shares (B, 10) that sum to 1.
        """


def chosen(config: TrainConfig) -> list[Augmentation]:
    """What `config` asks for, in the order of application; crop and flip come before (pipeline.training.batches)."""
    found: list[Augmentation] = []
    if config.policy == "trivialaugment":
        found.append(TrivialAugment())
    if config.cutout:
        found.append(Cutout(config.cutout))
    if config.mixup:  # the config allows one that mixes
        found.append(Mixup(config.mixup))
    if config.cutmix:
        found.append(CutMix(config.cutmix))
    if config.ricap:
        found.append(Ricap(config.ricap))
    return found


# --- Cutout, Mixup, CutMix and RICAP ----------------------------------------------------------------------


def rectangle(top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Masks of rectangles, bool (B, 32, 32, 1), from four tensors (B,); what is outside the image is cut off."""
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

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Paint the squares."""
        top, left = (drawn["cutout"] - self.side // 2).unbind(1)
        side = torch.full_like(top, self.side)
        # Filled there: a copy from the host would make it wait.
        grey = torch.stack([images.new_full((), round(255 * mean)) for mean in MEAN])
        return torch.where(rectangle(top, left, side, side), grey, images), labels


def _beta(alpha: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), float32: PyTorch's own take no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, shape).astype(np.float32))


def _blend(labels: Tensor, share: Tensor) -> Tensor:
    """Targets (B, 10): `share` (B,) of the image's own label, the rest of its neighbour's."""
    own = one_hot(labels, CLASSES).float()
    return torch.lerp(own.roll(1, 0), own, share[:, None])


@dataclass(frozen=True)
class Mixup:
    """Two images, blended (Zhang et al. 2017, arXiv:1710.09412)."""

    alpha: float

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """The share of each image."""
        return {"mixup": _beta(self.alpha, (rows,), generator)}

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Blend; the images become float32."""
        share = drawn["mixup"]
        pixels = images.float()
        return torch.lerp(pixels.roll(1, 0), pixels, share[:, None, None, None]), _blend(labels, share)


@dataclass(frozen=True)
class CutMix:
    """A rectangle of another image, pasted at its own place (Yun et al. 2019, arXiv:1905.04899)."""

    alpha: float

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """The rectangle's corner and sides in pixels: its centre lies anywhere, its area is 1 - Beta before cutting."""
        side = IMAGE_SIZE * (1 - _beta(self.alpha, (rows,), generator)).sqrt()
        centre = torch.randint(IMAGE_SIZE, (rows, 2), generator=generator)
        corner = (centre - side[:, None] / 2).round()
        return {"cutmix": torch.cat([corner, side[:, None].round().expand(-1, 2)], 1).long()}

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Paste, and count what the rectangle really covers."""
        inside = rectangle(*drawn["cutmix"].unbind(1))
        share = 1 - inside.float().mean((1, 2, 3))
        return torch.where(inside, images.roll(1, 0), images), _blend(labels, share)


@dataclass(frozen=True)
class Ricap:
    """Four images in the quarters around a random point (Takahashi et al. 2018, arXiv:1811.09030)."""

    beta: float

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """The point (row, column) in pixels, and where each quarter is cut out of its image, as shares of the room."""
        return {
            "ricap_point": (IMAGE_SIZE * _beta(self.beta, (rows, 2), generator)).round().long(),
            "ricap_origin": torch.rand(rows, 4, 2, generator=generator),
        }

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Cut and patch: quarter q (0: top left, 1: top right, 2: bottom left, 3: bottom right) is image i - q's."""
        point, origin = drawn["ricap_point"], drawn["ricap_origin"]
        batch = len(images)
        line = torch.arange(IMAGE_SIZE, device=images.device)
        below = line >= point[:, :1]  # (B, 32): whether a row lies in the lower half
        right = line >= point[:, 1:]
        quarter = 2 * below[:, :, None].long() + right[:, None, :].long()  # (B, 32, 32)
        # The sides of the four quarters, (B, 4, 2), and the pixel of its image at which each begins.
        first, second = point[:, None, :], IMAGE_SIZE - point[:, None, :]
        four = torch.arange(4, device=images.device)
        lower = torch.stack([four >= 2, four % 2 == 1], 1)
        sides = torch.where(lower, second, first)
        begin = (origin * (IMAGE_SIZE - sides + 1)).long() - torch.where(lower, first, 0)
        which = torch.arange(batch, device=images.device)[:, None, None]
        offset = begin[which, quarter]  # (B, 32, 32, 2)
        source = (which - quarter) % batch
        patched = images[source, line[:, None] + offset[..., 0], line + offset[..., 1]]
        own = one_hot(labels, CLASSES).float()
        areas = sides.prod(2).float() / IMAGE_SIZE**2
        targets = sum(areas[:, q, None] * own.roll(q, 0) for q in range(4))
        assert isinstance(targets, Tensor)
        return patched, targets


# --- TrivialAugment (torchvision's TrivialAugmentWide) for a whole batch, each image with an operation of its own ----

BINS = 31  # magnitudes of an operation, evenly spaced


class Operation(IntEnum):
    """What changes in an image, and what its magnitude means; in torchvision's order."""

    IDENTITY = 0
    SHEAR_X = 1  # columns a row, away from the upper edge
    SHEAR_Y = 2  # rows a column, away from the left edge
    TRANSLATE_X = 3  # whole pixels to the right
    TRANSLATE_Y = 4  # whole pixels down
    ROTATE = 5  # degrees counterclockwise
    BRIGHTNESS = 6  # BRIGHTNESS to SHARPNESS: -1 .. 1, from nothing of the property to twice as much
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10  # bits kept, 0 .. 8
    SOLARIZE = 11  # the lowest level that is inverted
    AUTOCONTRAST = 12
    EQUALIZE = 13


# The weakest and the strongest magnitude as torchvision has them; operations that are not here have none.
# "Wide" in https://arxiv.org/abs/2103.10158, table 7; 32 pixels leave nothing of a CIFAR-10 image.
MAGNITUDES: dict[Operation, tuple[float, float]] = {
    **dict.fromkeys((Operation.SHEAR_X, Operation.SHEAR_Y), (0, 0.99)),
    **dict.fromkeys((Operation.TRANSLATE_X, Operation.TRANSLATE_Y), (0, 32)),
    Operation.ROTATE: (0, 135),
    **dict.fromkeys((Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS), (0, 0.99)),
    Operation.POSTERIZE: (8, 2),
    Operation.SOLARIZE: (255, 0),
}
SIGNED = (Operation.SHEAR_X, Operation.SHARPNESS)  # from the one to the other: half of the draws are negative


def magnitudes() -> Tensor:
    """Each operation's magnitudes, float32 (14, 31): from weak to strong, without sign; 0 where there is none."""
    table = torch.zeros(len(Operation), BINS)
    for operation, (weakest, strongest) in MAGNITUDES.items():
        table[operation] = torch.linspace(weakest, strongest, BINS)
    table[Operation.TRANSLATE_X : Operation.TRANSLATE_Y + 1].trunc_()  # whole pixels
    table[Operation.POSTERIZE].round_()  # whole bits
    return table


@dataclass(frozen=True)
class TrivialAugment:
    """One operation per image, any of the fourteen at any of its magnitudes."""

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """policy_operation, int64, and policy_magnitude, float32, both (rows,)."""
        bins = torch.randint(BINS, (rows,), generator=generator)
        operation = torch.randint(len(Operation), (rows,), generator=generator)
        negative = torch.randint(2, (rows,), generator=generator) == 1
        negative &= (operation >= SIGNED[0]) & (operation <= SIGNED[1])
        magnitude = magnitudes()[operation, bins]
        return {"policy_operation": operation, "policy_magnitude": torch.where(negative, -magnitude, magnitude)}

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Carry the operations out."""
        return operate(images, drawn["policy_operation"], drawn["policy_magnitude"]), labels


def operate(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """The uint8 images (B, 32, 32, 3) after one operation (B,) int64 each, of the magnitude (B,) float32.

    Every image takes all steps, and what is not its operation leaves it alone: shapes never depend on the draws.
    """
    operation, magnitude = operation.view(-1, 1, 1, 1), magnitude.view(-1, 1, 1, 1)
    warped = warp(images, operation, magnitude)
    planes = warped.permute(0, 3, 1, 2).contiguous()  # channels apart: a CPU is 1.5 times as fast so
    planes = blend(planes, operation, magnitude)
    return requantize(planes, operation, magnitude).permute(0, 2, 3, 1).contiguous()


def warp(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shear, translate or rotate images (B, 32, 32, 3): the nearest pixel, and black from outside the image."""
    geometric = Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE
    amounts = (torch.where(operation == one, magnitude, 0.0).view(-1, 1, 1) for one in geometric)
    shear_x, shear_y, right, down, degrees = amounts
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    half, centre = IMAGE_SIZE / 2, (IMAGE_SIZE - 1) / 2  # in pixels, and as a pixel's index
    x = torch.arange(IMAGE_SIZE, device=images.device) - centre
    y = x.view(-1, 1)
    # Where each pixel comes from.  A shear keeps the upper or left edge, half an image from the centre.
    column = (x * cos + y * (shear_x - sin) + (half * shear_x - right + centre)).round()
    row = (y * cos + x * (shear_y + sin) + (half * shear_y - down + centre)).round()
    inside = (column == column.clamp(0, IMAGE_SIZE - 1)) & (row == row.clamp(0, IMAGE_SIZE - 1))
    pixels = torch.cat((images.reshape(-1, 3), images.new_zeros(1, 3)))  # the last one is black
    first = torch.arange(len(images), device=images.device).view(-1, 1, 1) * IMAGE_SIZE**2
    source = torch.where(inside, first + (row * IMAGE_SIZE + column).long(), len(pixels) - 1)
    return pixels.index_select(0, source.flatten()).view(images.shape)


def blend(planes: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """AutoContrast on uint8 planes (B, 3, 32, 32), and Brightness to Sharpness.

    These go towards or away from an image that lacks the property: black, grey, flat or smooth.
    """
    pixels = planes.float()
    darkest, brightest = planes.amin((2, 3), keepdim=True), planes.amax((2, 3), keepdim=True)
    stretched = (operation == Operation.AUTOCONTRAST) & (brightest > darkest)
    # To 0 .. 255 exactly: torchvision often ends at 254, by rounding.
    pixels.sub_(torch.where(stretched, darkest, 0)).mul_(255).div_(torch.where(stretched, brightest - darkest, 255))
    red, green, blue = pixels.unbind(1)
    target = (0.2989 * red + 0.587 * green + 0.114 * blue).floor().unsqueeze(1)  # ITU-R BT.601, as torchvision has it
    target = torch.where(operation == Operation.CONTRAST, target.mean((2, 3), keepdim=True), target)
    target = torch.where(operation == Operation.BRIGHTNESS, 0.0, target)
    target = torch.where(operation == Operation.SHARPNESS, smoothed(pixels), target)
    blended = (operation >= Operation.BRIGHTNESS) & (operation <= Operation.SHARPNESS)
    return pixels.lerp(target, torch.where(blended, -magnitude, 0.0)).clamp_(0, 255).to(torch.uint8)


def smoothed(planes: Tensor) -> Tensor:
    """Float planes (B, 3, 32, 32) under Pillow's SMOOTH filter: ones around a five; the border stays as it is."""
    rows = (planes[..., :-2, :] + planes[..., 1:-1, :]).add_(planes[..., 2:, :])
    box = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    result = planes.clone()
    result[..., 1:-1, 1:-1] = box.add_(planes[..., 1:-1, 1:-1], alpha=4).div_(13).round_()
    return result


def requantize(planes: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Posterize, Solarize or Equalize uint8 planes (B, 3, 32, 32)."""
    from torchvision.transforms.v2.functional import equalize  # noqa: PLC0415 - a second that only this policy takes

    dropped = torch.where(operation == Operation.POSTERIZE, 8 - magnitude, 0.0).exp2().round()  # exp2 is not exact
    result = planes & (256 - dropped).to(torch.uint8)
    inverted = (operation == Operation.SOLARIZE) & (planes >= magnitude.ceil().clamp(0, 255).to(torch.uint8))
    result = torch.where(inverted, ~planes, result)
    return torch.where(operation == Operation.EQUALIZE, equalize(planes), result)
