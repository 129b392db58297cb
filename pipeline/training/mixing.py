"""Mixup, CutMix and RICAP: images made of several, with targets in proportion; each image has its own proportion.

An image's partners are its neighbours in the batch: batches are in random order, so they are random images.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.recipes import TrainConfig
from pipeline.training.augmentations import Drawn, rectangle


class Mixing(Protocol):
    """Mixes the images of a batch, and their labels."""

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """Random numbers for `rows` images, on the CPU."""

    def apply(self, images: Tensor, labels: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """uint8 (B, 32, 32, 3), int64 (B,) -> images of that shape, 0..255, float32 targets (B, 10) that sum to 1."""


def chosen(config: TrainConfig) -> Mixing | None:
    """What `config` asks for; it allows one at a time."""
    if config.mixup:
        return Mixup(config.mixup)
    if config.cutmix:
        return CutMix(config.cutmix)
    if config.ricap:
        return Ricap(config.ricap)
    return None


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
