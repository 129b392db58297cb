"""The fourteen operations of TrivialAugment and RandAugment, for a whole batch at once, each image with its own.

What torchvision does to one image after the other.  Three steps cover all operations: a warp, a blend and a table
of grey levels.  Every image takes all three and is left alone by those that are not its operation's: shapes never
depend on the draws, so a GPU's queue never waits for the host.
"""

from enum import IntEnum

import torch
from torch import Tensor

from pipeline.config import IMAGE_SIZE

LEVELS = 256  # grey levels of a channel
PIXELS = IMAGE_SIZE * IMAGE_SIZE
CENTRE = (IMAGE_SIZE - 1) / 2  # the image's centre, in pixel indices


class Operation(IntEnum):
    """What is done to an image, and what its magnitude means; in torchvision's order."""

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


def operate(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """The uint8 images (B, 32, 32, 3) after one operation (B,) int64 each, of the magnitude (B,) float32."""
    operation, magnitude = operation.view(-1, 1, 1, 1), magnitude.view(-1, 1, 1, 1)
    warped = warp(images, operation, magnitude)
    planes = warped.permute(0, 3, 1, 2).contiguous()  # channels apart: a CPU is 1.5 times as fast so
    grey = luminance(planes)
    planes = blend(planes, grey, operation, magnitude)
    return look_up(planes, grey, operation, magnitude).permute(0, 2, 3, 1).contiguous()


def amount(operation: Tensor, magnitude: Tensor, *of: Operation) -> Tensor:
    """The magnitude where the operation is one of those, else 0, which leaves an image alone."""
    chosen = torch.zeros_like(operation, dtype=torch.bool)
    for one in of:
        chosen = chosen | (operation == one)
    return torch.where(chosen, magnitude, 0.0)


def warp(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shear, translate or rotate images (B, 32, 32, 3): the nearest pixel, and black from outside the image."""
    geometric = Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE
    amounts = (amount(operation, magnitude, one).view(-1, 1, 1) for one in geometric)
    shear_x, shear_y, right, down, degrees = amounts
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    x = torch.arange(IMAGE_SIZE, device=images.device) - CENTRE
    y = x.view(-1, 1)
    # Where each pixel comes from.  A shear keeps the upper or left edge, half an image from the centre.
    half = IMAGE_SIZE / 2
    column = (x * cos + y * (shear_x - sin) + (half * shear_x - right + CENTRE)).round()
    row = (y * cos + x * (shear_y + sin) + (half * shear_y - down + CENTRE)).round()
    inside = (column == column.clamp(0, IMAGE_SIZE - 1)) & (row == row.clamp(0, IMAGE_SIZE - 1))
    pixels = torch.cat((images.reshape(-1, 3), images.new_zeros(1, 3)))  # the last one is black
    first = torch.arange(len(images), device=images.device).view(-1, 1, 1) * PIXELS
    source = torch.where(inside, first + (row * IMAGE_SIZE + column).long(), len(pixels) - 1)
    return pixels.index_select(0, source.flatten()).view(images.shape)


def luminance(planes: Tensor) -> Tensor:
    """Whole grey levels (B, 1, 32, 32) as float32, by the weights of ITU-R BT.601 as torchvision has them."""
    red, green, blue = planes.float().unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor().unsqueeze(1)


def blend(planes: Tensor, grey: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Color: towards or away from the grey image (B, 1, 32, 32).  Sharpness: likewise with the smoothed image."""
    pixels = planes.float()
    target = torch.where(operation == Operation.SHARPNESS, smoothed(pixels), grey)
    strength = amount(operation, magnitude, Operation.COLOR, Operation.SHARPNESS)
    return pixels.lerp(target, -strength).clamp_(0, LEVELS - 1).to(torch.uint8)


def smoothed(planes: Tensor) -> Tensor:
    """Float planes (B, 3, 32, 32) under Pillow's SMOOTH filter: ones around a five; the border stays as it is."""
    rows = (planes[..., :-2, :] + planes[..., 1:-1, :]).add_(planes[..., 2:, :])
    box = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    result = planes.clone()
    result[..., 1:-1, 1:-1] = box.add_(planes[..., 1:-1, 1:-1], alpha=4).div_(13).round_()
    return result


def look_up(planes: Tensor, grey: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """All other operations turn equal levels of an image's channel into equal levels: one table for each channel."""
    device = planes.device
    first = torch.arange(3 * len(planes), device=device).view(-1, 3, 1, 1) * LEVELS
    entry = planes.long().add_(first).flatten()  # of each pixel, in the tables laid end to end
    counts = torch.zeros(3 * len(planes) * LEVELS, device=device)
    counts.scatter_add_(0, entry, torch.ones((), device=device).expand_as(entry))
    table = tables(counts.view(-1, 3, LEVELS), grey, operation, magnitude)
    return table.flatten().index_select(0, entry).view(planes.shape)


def tables(counts: Tensor, grey: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """The new level of each level, uint8 (B, 3, 256), from the channels' histograms: float32 counts (B, 3, 256)."""
    operation, magnitude = operation.view(-1, 1, 1), magnitude.view(-1, 1, 1)
    level = torch.arange(LEVELS, device=counts.device, dtype=torch.float32)
    # Contrast: towards or away from the mean grey.  Brightness: likewise with black.
    target = torch.where(operation == Operation.CONTRAST, grey.mean((2, 3)).view(-1, 1, 1), 0.0)
    strength = amount(operation, magnitude, Operation.BRIGHTNESS, Operation.CONTRAST)
    table = level.lerp(target, -strength)
    step = torch.where(operation == Operation.POSTERIZE, 8 - magnitude, 0.0).exp2().round()  # exp2 is not exact
    table = torch.where(operation == Operation.POSTERIZE, level - level % step, table)
    inverted = (operation == Operation.SOLARIZE) & (level >= magnitude)
    table = torch.where(inverted, LEVELS - 1 - level, table)
    upto = counts.cumsum(-1)
    table = torch.where(operation == Operation.AUTOCONTRAST, stretched(level, upto), table)
    table = torch.where(operation == Operation.EQUALIZE, equalized(level, counts, upto), table)
    return table.clamp(0, LEVELS - 1).to(torch.uint8)


def stretched(level: Tensor, upto: Tensor) -> Tensor:
    """AutoContrast's tables (B, 3, 256): the darkest level becomes 0 and the brightest 255.

    `upto` counts the pixels of each level and below.  torchvision's brightest level is often 254, by rounding.
    """
    darkest = (upto == 0).sum(-1, keepdim=True)
    brightest = (upto < PIXELS).sum(-1, keepdim=True)
    return torch.where(brightest > darkest, (level - darkest) * (LEVELS - 1) / (brightest - darkest), level)


def equalized(level: Tensor, counts: Tensor, upto: Tensor) -> Tensor:
    """Equalize's tables (B, 3, 256) by Pillow's rule: one new level for each `step` darker pixels.

    `step` spreads all pixels but those of the brightest level over 255 levels; where they are too few, nothing changes.
    """
    step = (torch.where(upto < PIXELS, upto, 0.0).amax(-1, keepdim=True) / (LEVELS - 1)).floor()
    darker = upto - counts
    even = ((darker + (step / 2).floor()) / step.clamp(min=1)).floor()
    return torch.where(step > 0, even, level)
