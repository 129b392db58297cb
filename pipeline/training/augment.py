"""Augmentations of a batch of uint8 images, with separate random numbers for each image.

`draw` draws an epoch's numbers, so that any step can be repeated; `apply` uses them batch by batch, on the device,
without host synchronisation.  torchvision's transforms work on single images, or draw once per batch.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.config import CLASSES, IMAGE_SIZE, MEAN
from pipeline.recipes import TrainConfig

Drawn = dict[str, Tensor]  # random numbers by name, each of shape (rows, ...)


def draw(rows: int, config: TrainConfig, generator: torch.Generator) -> Drawn:
    """Random numbers for the augmentations of `config`, for `rows` images, on the CPU (crop and flip: batches.draw).

    cutout, cutmix: int64 (rows, 4), the rectangle's corner (top, left) and sides in pixels.
    mixup: float32 (rows,), the image's own share.
    """
    drawn: Drawn = {}
    if config.cutout:
        corner = torch.randint(IMAGE_SIZE, (rows, 2), generator=generator) - config.cutout // 2
        drawn["cutout"] = torch.cat([corner, torch.full_like(corner, config.cutout)], 1)
    if config.mixup:  # the config allows one of the two
        drawn["mixup"] = _beta(config.mixup, rows, generator)
    if config.cutmix:
        side = IMAGE_SIZE * (1 - _beta(config.cutmix, rows, generator)).sqrt()[:, None]
        corner = torch.randint(IMAGE_SIZE, (rows, 2), generator=generator) - side / 2
        drawn["cutmix"] = torch.cat([corner, side.expand(-1, 2)], 1).round().long()
    return drawn


def _beta(alpha: float, rows: int, generator: torch.Generator) -> Tensor:
    """Draws (rows,) from Beta(alpha, alpha), float32: PyTorch's Beta takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, rows).astype(np.float32))


def apply(images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
    """Augment uint8 images (B, 32, 32, 3) with int64 labels (B,) by the numbers that were drawn for these B.

    Returns:
        Images of that shape, uint8 or after Mixup float32, 0..255, and targets: the labels, or for mixed images
        float32 (B, 10) of sum 1.
    """
    if "cutout" in drawn:
        # Filled on the device: a copy from the host would synchronise.
        grey = torch.stack([images.new_full((), round(255 * mean)) for mean in MEAN])
        images = torch.where(rectangle(drawn["cutout"]), grey, images)
    if "mixup" in drawn:
        return mixup(images, labels, drawn["mixup"])
    if "cutmix" in drawn:
        return cutmix(images, labels, drawn["cutmix"])
    return images, labels


# --- Cutout, Mixup and CutMix: an image's partner is the one before it in the batch --------------------------


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
