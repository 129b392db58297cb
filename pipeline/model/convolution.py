"""The 3x3 convolution of the residual networks, with a faster gradient of its filters on CPUs with AMX."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torch.nn.grad import conv2d_input, conv2d_weight

NARROW = 7  # pixels: wider images gain nothing
SHEET = 64  # pixels: two of AMX's tiles
AMX = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())  # PyTorch has no public API for it


class Convolution(nn.Conv2d):
    """A 3x3 convolution with zero padding; it has no bias, since batch normalisation follows, until that is folded.

    A `residual` one gives x + conv(x): adding the identity to the filters spares passes over the images.
    """

    def __init__(self, channels_in: int, channels: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.residual = residual

    def filters(self) -> Tensor:
        """What the images are convolved with: (channels, channels_in, 3, 3)."""
        if not self.residual:
            return self.weight
        identity = torch.zeros_like(self.weight)
        identity[:, :, 1, 1].fill_diagonal_(1)
        return self.weight + identity

    def forward(self, input: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H / stride, W / stride)."""
        filters = self.filters()
        narrow = self.stride == (1, 1) and input.shape[3] <= NARROW and self.bias is None
        on_amx = AMX and input.device.type == "cpu" and input.dtype == torch.bfloat16
        if narrow and on_amx and torch.is_grad_enabled():
            result: Tensor = _OnSheets.apply(input, filters.to(input.dtype))
        else:
            result = self._conv_forward(input, filters, self.bias)
        return result


class _OnSheets(torch.autograd.Function):
    """conv2d(x, weight, padding=1); the weight's gradient comes from sheets of images.

    With AMX, oneDNN (3.12, in PyTorch 2.14) sums it over the pixels of one row at a time, in tiles of 32: with rows of
    7 pixels three quarters of the work is on zeros.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = conv2d_input(x.shape, weight, gradient, padding=1)  # type: ignore[no-untyped-call]
        of_weight = conv2d_weight(  # type: ignore[no-untyped-call]
            sheets(x), weight.shape, sheets(gradient), padding=1
        )
        return of_x, of_weight


def sheets(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (about B / n, C, H, n * (W + 1)): n = SHEET // (W + 1) images side by side, zeros between them.

    Images of zeros fill the last sheet.
    """
    batch, channels, height, width = images.shape
    n = SHEET // (width + 1)
    if missing := -batch % n:
        images = pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
    result = images.new_empty(len(images) // n, height, n, width + 1, channels)  # channels_last
    result[:, :, :, width] = 0
    result[:, :, :, :width] = images.permute(0, 2, 3, 1).reshape(-1, n, height, width, channels).transpose(1, 2)
    return result.flatten(2, 3).permute(0, 3, 1, 2)
