"""Augmentations of a batch of uint8 images, with separate random numbers for each image.

`draw` draws an epoch's numbers, so that any step can be repeated; `apply` uses them batch by batch, on the device,
without host synchronisation.  torchvision's transforms work on single images, or draw once per batch.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot

from pipeline.config import CLASSES, IMAGE_SIZE, MEAN
from pipeline.recipes import TrainConfig

Drawn = dict[str, Tensor]  # random numbers by name, each of shape (rows, ...)


def draw(rows: int, config: TrainConfig, generator: torch.Generator) -> Drawn:
    """Random numbers for the augmentations of `config`, for `rows` images, on the CPU (crop and flip: batches.draw).

    policy_operation, policy_magnitude: (rows,), int64 and float32, see Operation.
    cutout, cutmix: int64 (rows, 4), the rectangle's corner (top, left) and sides in pixels.
    mixup: float32 (rows,), the image's own share.
    ricap_point: int64 (rows, 2), the row and column in pixels where the four images meet.
    ricap_origin: float32 (rows, 4, 2), where each quarter is cut out of its image, as shares of the free space.
    """
    drawn: Drawn = {}
    if config.policy == "trivialaugment":
        bins = torch.randint(BINS, (rows,), generator=generator)
        operation = torch.randint(len(Operation), (rows,), generator=generator)
        negative = torch.randint(2, (rows,), generator=generator) == 1
        negative &= (operation >= SIGNED[0]) & (operation <= SIGNED[1])
        magnitude = magnitudes()[operation, bins]
        drawn["policy_operation"] = operation
        drawn["policy_magnitude"] = torch.where(negative, -magnitude, magnitude)
    if config.cutout:
        corner = torch.randint(IMAGE_SIZE, (rows, 2), generator=generator) - config.cutout // 2
        drawn["cutout"] = torch.cat([corner, torch.full_like(corner, config.cutout)], 1)
    if config.mixup:  # the config allows one of the three
        drawn["mixup"] = _beta(config.mixup, (rows,), generator)
    if config.cutmix:
        side = IMAGE_SIZE * (1 - _beta(config.cutmix, (rows,), generator)).sqrt()[:, None]
        corner = torch.randint(IMAGE_SIZE, (rows, 2), generator=generator) - side / 2
        drawn["cutmix"] = torch.cat([corner, side.expand(-1, 2)], 1).round().long()
    if config.ricap:
        drawn["ricap_point"] = (IMAGE_SIZE * _beta(config.ricap, (rows, 2), generator)).round().long()
        drawn["ricap_origin"] = torch.rand(rows, 4, 2, generator=generator)
    return drawn


def _beta(alpha: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws from Beta(alpha, alpha), float32: PyTorch's Beta takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, shape).astype(np.float32))


def apply(images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """Augment uint8 images (B, 32, 32, 3) with int64 labels (B,) by the numbers that were drawn for these B.

    Returns:
        Images of that shape, uint8 or after Mixup float32, 0..255, and targets: the labels, or for mixed images
        float32 (B, 10) of sum 1.
    """
    if "policy_operation" in drawn:
        images = operate(images, drawn["policy_operation"], drawn["policy_magnitude"])
    if "cutout" in drawn:
        # Filled on the device: a copy from the host would synchronise.
        grey = torch.stack([images.new_full((), round(255 * mean)) for mean in MEAN])
        images = torch.where(rectangle(drawn["cutout"]), grey, images)
    if "mixup" in drawn:
        return mixup(images, labels, drawn["mixup"])
    if "cutmix" in drawn:
        return cutmix(images, labels, drawn["cutmix"])
    if "ricap_point" in drawn:
        return ricap(images, labels, drawn["ricap_point"], drawn["ricap_origin"])
    return images, labels


# --- Cutout, Mixup, CutMix and RICAP: an image's partners are those before it in the batch ------------------


def rectangle(drawn: Tensor) -> Tensor:
    """Masks bool (B, 32, 32, 1) of rectangles (B, 4): top, left, height, width; clipped to the image.

    Cutout paints a grey square, its centre anywhere (DeVries and Taylor 2017, arXiv:1708.04552).  Grey is the mean
    pixel, which is zero after normalisation.
    """
    top, left, height, width = drawn[:, :, None].unbind(1)
    line = torch.arange(IMAGE_SIZE, device=drawn.device)
    rows, columns = (line >= top) & (line < top + height), (line >= left) & (line < left + width)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(3)


def mixup(images: Tensor, labels: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Two images, blended; `share` (B,) is the image's own (Zhang et al. 2017, arXiv:1710.09412)."""
    pixels = images.float()
    return torch.lerp(pixels.roll(1, 0), pixels, share[:, None, None, None]), _blend(labels, share)


def _blend(labels: Tensor, share: Tensor) -> Tensor:
    """Targets (B, 10): `share` (B,) of the image's own label, the rest of its partner's."""
    own = one_hot(labels, CLASSES).float()
    return torch.lerp(own.roll(1, 0), own, share[:, None])


def cutmix(images: Tensor, labels: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """A rectangle of another image, pasted at its own place (Yun et al. 2019, arXiv:1905.04899).

    Its area is 1 - Beta before clipping; the target counts the clipped area.
    """
    inside = rectangle(drawn)
    return torch.where(inside, images.roll(1, 0), images), _blend(labels, 1 - inside.float().mean((1, 2, 3)))


def ricap(images: Tensor, labels: Tensor, point: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Four images in the quarters around a random point (Takahashi et al. 2018, arXiv:1811.09030).

    Quarter q (0: top left, 1: top right, 2: bottom left, 3: bottom right) comes from image i - q.
    """
    line = torch.arange(IMAGE_SIZE, device=images.device)
    below, right = line >= point[:, :1], line >= point[:, 1:]  # (B, 32): whether a row or column is in the second half
    quarter = 2 * below[:, :, None].long() + right[:, None, :].long()  # (B, 32, 32)
    # The sides of the four quarters, (B, 4, 2), and the pixel of its image at which each begins.
    first, second = point[:, None, :], IMAGE_SIZE - point[:, None, :]
    four = torch.arange(4, device=images.device)
    later = torch.stack([four >= 2, four % 2 == 1], 1)
    sides = torch.where(later, second, first)
    begin = (origin * (IMAGE_SIZE - sides + 1)).long() - torch.where(later, first, 0)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    offset = begin[which, quarter]  # (B, 32, 32, 2)
    patched = images[(which - quarter) % len(images), line[:, None] + offset[..., 0], line + offset[..., 1]]
    own = one_hot(labels, CLASSES).float()
    partners = torch.stack([own.roll(q, 0) for q in range(4)], 1)  # (B, 4, 10)
    areas = sides.prod(2, keepdim=True) / IMAGE_SIZE**2
    return patched, (areas * partners).sum(1)


# --- TrivialAugment (torchvision's TrivialAugmentWide) for a whole batch, each image with an operation of its own ----

BINS = 31  # magnitudes of an operation, evenly spaced


class Operation(IntEnum):
    """The operations, in torchvision's order, and the meaning of their magnitudes."""

    IDENTITY = 0
    SHEAR_X = 1  # columns a row, away from the upper edge
    SHEAR_Y = 2  # rows a column, away from the left edge
    TRANSLATE_X = 3  # whole pixels to the right
    TRANSLATE_Y = 4  # whole pixels down
    ROTATE = 5  # degrees counterclockwise
    BRIGHTNESS = 6  # BRIGHTNESS to SHARPNESS: -1 .. 1, from none of the property to twice as much
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10  # bits kept, 0 .. 8
    SOLARIZE = 11  # the lowest level that is inverted
    AUTOCONTRAST = 12
    EQUALIZE = 13


# torchvision's weakest and strongest magnitudes; operations that are not listed have none.
# "Wide" in https://arxiv.org/abs/2103.10158, table 7; 32 pixels shift a whole CIFAR-10 image out.
MAGNITUDES: dict[Operation, tuple[float, float]] = {
    **dict.fromkeys((Operation.SHEAR_X, Operation.SHEAR_Y), (0, 0.99)),
    **dict.fromkeys((Operation.TRANSLATE_X, Operation.TRANSLATE_Y), (0, 32)),
    Operation.ROTATE: (0, 135),
    **dict.fromkeys((Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS), (0, 0.99)),
    Operation.POSTERIZE: (8, 2),
    Operation.SOLARIZE: (255, 0),
}
SIGNED = (Operation.SHEAR_X, Operation.SHARPNESS)  # first and last operation with random signs


def magnitudes() -> Tensor:
    """The magnitudes of each operation, float32 (14, 31), from weak to strong, unsigned; 0 if it has none."""
    table = torch.zeros(len(Operation), BINS)
    for operation, (weakest, strongest) in MAGNITUDES.items():
        table[operation] = torch.linspace(weakest, strongest, BINS)
    table[Operation.TRANSLATE_X : Operation.TRANSLATE_Y + 1].trunc_()  # whole pixels
    table[Operation.POSTERIZE].round_()  # whole bits
    return table


def operate(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Apply one operation (B,) int64 of magnitude (B,) float32 to each uint8 image (B, 32, 32, 3).

    Every image takes all steps, and only its own changes it, so that shapes never depend on the draws.
    """
    planes = warp(images.permute(0, 3, 1, 2), operation, magnitude)
    operation, magnitude = operation.view(-1, 1, 1, 1), magnitude.view(-1, 1, 1, 1)
    planes = blend(planes, operation, magnitude)
    return requantize(planes, operation, magnitude).permute(0, 2, 3, 1).contiguous()


def warp(planes: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shear, translate or rotate uint8 planes (B, 3, 32, 32) -> float32: nearest pixels, black outside."""
    geometric = Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE
    shear_x, shear_y, right, down, degrees = (torch.where(operation == one, magnitude, 0.0) for one in geometric)
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    half = IMAGE_SIZE / 2  # pixels from the centre, where coordinates are 0, to an edge, where they are -1 or 1
    # The source of each pixel.  A shear keeps the upper or left edge.
    column = torch.stack([cos, shear_x - sin, shear_x - right / half], 1)
    row = torch.stack([shear_y + sin, cos, shear_y - down / half], 1)
    grid = affine_grid(torch.stack([column, row], 1), list(planes.shape), align_corners=False)
    # Contiguous planes are 1.5 times as fast on a CPU.
    return grid_sample(planes.float().contiguous(), grid, mode="nearest", align_corners=False)


def blend(pixels: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """AutoContrast, and Brightness to Sharpness, on whole float32 planes (B, 3, 32, 32) in place; uint8.

    The latter blend with an image that lacks the property: black, grey, flat or smooth.
    """
    darkest, brightest = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    stretched = (operation == Operation.AUTOCONTRAST) & (brightest > darkest)
    # To 0 .. 255 exactly: torchvision often ends at 254, by rounding.
    pixels.sub_(torch.where(stretched, darkest, 0)).mul_(255).div_(torch.where(stretched, brightest - darkest, 255))
    red, green, blue = pixels.unbind(1)
    target = (0.2989 * red + 0.587 * green + 0.114 * blue).floor().unsqueeze(1)  # ITU-R BT.601, as in torchvision
    target = torch.where(operation == Operation.CONTRAST, target.mean((2, 3), keepdim=True), target)
    target = torch.where(operation == Operation.BRIGHTNESS, 0.0, target)
    target = torch.where(operation == Operation.SHARPNESS, smoothed(pixels), target)
    blended = (operation >= Operation.BRIGHTNESS) & (operation <= Operation.SHARPNESS)
    return pixels.lerp(target, torch.where(blended, -magnitude, 0.0)).clamp_(0, 255).to(torch.uint8)


def smoothed(planes: Tensor) -> Tensor:
    """Pillow's SMOOTH filter, ones around a five, on float planes (B, 3, 32, 32); the border is unchanged."""
    rows = planes[..., :-2, :] + planes[..., 1:-1, :] + planes[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    result = planes.clone()
    result[..., 1:-1, 1:-1] = box.add_(planes[..., 1:-1, 1:-1], alpha=4).div_(13).round_()
    return result


def requantize(planes: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Posterize, Solarize or Equalize uint8 planes (B, 3, 32, 32)."""
    from torchvision.transforms.v2.functional import equalize  # noqa: PLC0415 - takes a second

    dropped = torch.where(operation == Operation.POSTERIZE, 8 - magnitude, 0.0).exp2().round()  # exp2 is not exact
    result = planes & (256 - dropped).to(torch.uint8)
    inverted = (operation == Operation.SOLARIZE) & (planes >= magnitude.ceil().clamp(0, 255).to(torch.uint8))
    result = torch.where(inverted, ~planes, result)
    return torch.where(operation == Operation.EQUALIZE, equalize(planes), result)
