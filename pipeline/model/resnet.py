"""The residual networks, all of one form: stem, stages, global average pooling, one linear layer.

A ModelConfig gives widths, blocks and strides.  The stages are of BasicBlocks: He et al., "Deep Residual Learning
for Image Recognition" (2015), with the 3x3 stem without max-pooling that 32-pixel images need.  A stage divides height
and width in its first block, or, `pooled`, by a convolution and max-pooling before its blocks, as in Page's "How to
train your ResNet" (2019), where the network has fewer and wider layers.

Convolutions have no bias, since a batch normalisation follows each, but for the whitened stem, whose answers have
unit variance already.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, dropout, relu

from pipeline.config import CLASSES
from pipeline.recipes import ModelConfig


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate that sees all channels' means (Hu et al. 2017, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        gate = self.expand(relu(self.reduce(adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


class BasicBlock(nn.Module):
    """relu(se(bn(conv(relu(bn(conv(x)))))) + shortcut(x)); the first convolution has the stride.

    The shortcut is the identity, or a 1x1 convolution with batch normalisation where the shape changes.
    Without `reduction` there is no squeeze-and-excitation.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, reduction: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = nn.Sequential()
        if reduction:
            self.se.append(SqueezeExcitation(channels, reduction))
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        return relu(self.se(self.bn2(self.conv2(out))) + self.shortcut(x))


class PooledConvolution(nn.Module):
    """relu(bn(max_pool(conv(x)))): nothing but the convolution itself works at the size of the input."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(stride)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H // stride, W // stride)."""
        return relu(self.bn(self.pool(self.conv(x))))


class ResNet(nn.Module):
    """A network as `config` describes it; `dropout` is the probability before the linear layer, in training."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = 0.0
        if config.whitened:
            self.conv1 = nn.Conv2d(3, config.stem, 2)
            self.conv1.weight.requires_grad_(False)
            self.bn1: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(3, config.stem, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(config.stem)
        self.stages = nn.Sequential()
        channels = config.stem
        for width, blocks, stride in zip(config.widths, config.blocks, config.strides, strict=True):
            self.stages.append(_stage(channels, width, blocks, stride, config))
            channels = width
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, 32, 32) -> logits (B, 10)."""
        logits: Tensor = self.fc(dropout(self.features(x), self.dropout, self.training))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, 32, 32) -> what the linear layer sees, (B, the last width)."""
        out = self.stages(relu(self.bn1(self.conv1(x))))
        return adaptive_avg_pool2d(out, 1).flatten(1)


def _stage(channels_in: int, channels: int, blocks: int, stride: int, config: ModelConfig) -> nn.Sequential:
    stage = nn.Sequential()
    if config.pooled:
        stage.append(PooledConvolution(channels_in, channels, stride))
    else:
        stage.append(BasicBlock(channels_in, channels, stride, config.se))
    for _ in range(blocks if config.pooled else blocks - 1):
        stage.append(BasicBlock(channels, channels, 1, config.se))
    return stage


def build(config: ModelConfig, seed: int) -> ResNet:
    """The network on the CPU with PyTorch's default initialisation, drawn from `seed` alone.

    The layers draw from the global generator, so that one is put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ResNet(config)


def build_without_memory(config: ModelConfig) -> ResNet:
    """The network on the meta device: shapes only, for counting."""
    with torch.device("meta"):
        return ResNet(config)
