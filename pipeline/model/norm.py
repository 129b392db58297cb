"""The batch normalisation of the residual networks, faster in bfloat16 on CPUs where channels do not fill vectors."""

import math
from typing import Any

import torch
from torch import Tensor, nn

VECTOR = 16  # bfloat16 values that PyTorch's kernels take at once


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d; where PyTorch treats some channels one by one (4 of 36), several pixels fill a vector."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        pixels = VECTOR // math.gcd(VECTOR, self.num_features)  # side by side they fill vectors
        count = input[:, 0].numel()
        on_cpu = input.device.type == "cpu" and input.dtype == torch.bfloat16 and not torch.compiler.is_compiling()
        # Without a momentum, as in update_bn, the running statistics are plain averages.
        if self.training and self.momentum and on_cpu and 1 < pixels < count and count % pixels == 0:
            mean, variance = self._moments(_rows(input, pixels), count, self.momentum)
            result: Tensor = _SideBySide.apply(input, self.weight, self.bias, mean, variance, self.eps, pixels)
            return result
        return super().forward(input)

    @torch.no_grad()
    def _moments(self, rows: Tensor, count: int, momentum: float) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over `count` pixels; updates the running statistics."""
        mean, variance = torch.zeros(2, rows.shape[1])  # of each column
        torch.batch_norm_update_stats(rows, mean, variance, 1.0)  # what it returns is rounded to bfloat16
        variance *= 1 - 1 / len(rows)  # it divides by their number less one
        means, variances = mean.view(-1, self.num_features), variance.view(-1, self.num_features)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1), momentum)
        self.num_batches_tracked += 1
        return mean, variance


class _SideBySide(torch.autograd.Function):
    """weight * (x - mean) / sqrt(variance + eps) + bias with the mean and variance of the batch; n pixels in a row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, n: int
    ) -> Tensor:
        weight, bias, mean, variance = (value.repeat(n) for value in (weight, bias, mean, variance))
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.n, ctx.eps = n, eps
        normalised = torch.native_batch_norm(_rows(x, n), weight, bias, mean, variance, False, 0.0, eps)[0]
        return _images(normalised, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        rows, gradients, n, eps = _rows(x, ctx.n), _rows(gradient, ctx.n), ctx.n, ctx.eps
        # With z = (x - mean) / deviation: weight / deviation * (gradient - its mean - z * mean of gradient * z).
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradients, rows, weight, mean, variance, None, None, False, eps, [False, True, True]
        )
        of_weight, of_bias = of_weight.view(n, -1).sum(0), of_bias.view(n, -1).sum(0)
        scale = weight * (variance + eps).rsqrt()
        slope, offset = (-scale * of.repeat(n) / x[:, 0].numel() for of in (of_weight, of_bias))
        of_rows = torch.native_batch_norm(rows, slope, offset, mean, variance, False, 0.0, eps)[0]
        of_rows = torch.addcmul(of_rows, gradients, scale.to(gradients.dtype))  # twice as fast as in place
        return _images(of_rows, x), of_weight, of_bias, None, None, None, None


def _rows(images: Tensor, n: int) -> Tensor:
    """(B, C, H, W) -> (B * H * W / n, n * C); a view if they are channels_last."""
    return images.permute(0, 2, 3, 1).reshape(-1, n * images.shape[1])


def _images(rows: Tensor, like: Tensor) -> Tensor:
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
