"""From stored pixels to what the networks take: training and prediction must share this to the bit."""

import functools

import torch
from torch import Tensor

from pipeline.config import MEAN, STD


def normalise(images: Tensor) -> Tensor:
    """RGB images (B, H, W, 3), 0..255, uint8 or float32 -> float32 (B, 3, H, W), (x / 255 - MEAN) / STD a channel.

    The pixels stay where they are: the result has the channels_last layout that convolutions like best.
    """
    mean, std = _constants(images.device)
    return torch.sub(images.permute(0, 3, 1, 2), mean).div_(std)  # two passes over memory instead of three


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD times 255, (3, 1, 1): made once, since a copy to the device would make each step wait."""
    mean, std = (torch.tensor(values, device=device).mul(255).view(3, 1, 1) for values in (MEAN, STD))
    return mean, std
