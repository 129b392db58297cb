"""The 3x3 convolution of the residual networks, faster for small images on CPUs with AMX."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

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
        on_amx = AMX and input.device.type == "cpu" and input.dtype == torch.bfloat16
        if on_amx and input.shape[3] <= NARROW and self.stride == (1, 1):
            result: Tensor = _OnSheets.apply(input, filters.to(input.dtype), self.bias)
        else:
            result = self._conv_forward(input, filters, self.bias)
        return result


class _OnSheets(torch.autograd.Function):
    """conv2d(x, filters, bias, padding=1), computed on sheets of images.

    With AMX, oneDNN (3.12, in PyTorch 2.14) takes the pixels of one row at a time, in tiles of up to 32: with rows of
    7 pixels three quarters of the filters' gradient is work on zeros.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        on_sheets = sheets(x)
        ctx.save_for_backward(on_sheets, filters)
        ctx.biased = bias is not None
        return cut_out(conv2d(on_sheets, filters, bias, padding=1), len(x), x.shape[3])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        on_sheets, filters = ctx.saved_tensors
        once, wanted = [1, 1], [True, True, ctx.biased]
        of_sheets, of_filters, of_bias = torch.ops.aten.convolution_backward(
            sheets(gradient), on_sheets, filters, [len(filters)], once, once, once, False, [0, 0], 1, wanted
        )
        return cut_out(of_sheets, len(gradient), gradient.shape[3]), of_filters, of_bias


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


def cut_out(on_sheets: Tensor, batch: int, width: int) -> Tensor:
    """The first `batch` images on the sheets, (batch, C, H, width)."""
    side_by_side = torch.unflatten(on_sheets.permute(0, 2, 3, 1), 2, (-1, width + 1))
    return side_by_side[:, :, :, :width].transpose(1, 2).flatten(0, 1)[:batch].permute(0, 3, 1, 2)
