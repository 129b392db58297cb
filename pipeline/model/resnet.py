"""The residual networks: stem, stages, global average pooling, one linear layer.

A ModelConfig gives widths, blocks and strides.  Stages consist of BasicBlocks: He et al., "Deep Residual Learning for
Image Recognition" (2015), with the 3x3 stem without max-pooling that 32-pixel images need.  A stage downsamples in its
first block, or, if `pooled`, by a convolution and max-pooling before its blocks, as in Page's "How to train your
ResNet" (2019).

Convolutions have no bias, since batch normalisation follows; the whitened stem, whose outputs have unit variance, does.
"""

import copy
import dataclasses
import functools
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, dropout, relu
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.config import CLASSES, MEAN, STD
from pipeline.errors import BadData, first_line
from pipeline.recipes import ModelConfig
from pipeline.store import atomic


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from all channels' means (Hu et al. 2017, arXiv:1709.01507)."""

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
    """

    def __init__(self, channels_in: int, channels: int, stride: int, reduction: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = nn.Sequential(*([SqueezeExcitation(channels, reduction)] if reduction else []))
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        return relu(self.se(self.bn2(self.conv2(out))) + self.shortcut(x))


class PooledConvolution(nn.Module):
    """relu(bn(max_pool(conv(x)))): only the convolution works at the input's resolution."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(stride)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H // stride, W // stride)."""
        return relu(self.bn(self.pool(self.conv(x))))


class ResNet(nn.Module):
    """The model that `config` describes; `dropout` is the probability before the linear layer."""

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
            stage = nn.Sequential()
            if config.pooled:
                stage.append(PooledConvolution(channels, width, stride))
            for k in range(blocks):
                begins = k == 0 and not config.pooled
                stage.append(BasicBlock(channels if begins else width, width, stride if begins else 1, config.se))
            self.stages.append(stage)
            channels = width
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, 32, 32) -> logits (B, 10)."""
        logits: Tensor = self.fc(dropout(self.features(x), self.dropout, self.training))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, 32, 32) -> the linear layer's input, (B, the last width)."""
        out = self.stages(relu(self.bn1(self.conv1(x))))
        return adaptive_avg_pool2d(out, 1).flatten(1)


def build(config: ModelConfig, seed: int) -> ResNet:
    """The model on the CPU with PyTorch's default initialisation from `seed`; restores the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ResNet(config)


# --- normalisation: training and prediction must share it to the bit ---------------------------------------


def normalise(images: Tensor) -> Tensor:
    """RGB images (B, H, W, 3), 0..255, uint8 or float32 -> float32 (B, 3, H, W), (x / 255 - MEAN) / STD a channel.

    The result keeps the channels_last layout, which convolutions prefer.
    """
    mean, std = _constants(images.device)
    return torch.sub(images.permute(0, 3, 1, 2), mean).div_(std)  # two passes over memory instead of three


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD times 255, (3, 1, 1); cached, since a copy to the device would stall each step."""
    mean, std = (torch.tensor(values, device=device).mul(255).view(3, 1, 1) for values in (MEAN, STD))
    return mean, std


# --- the whitened stem, computed from the training images --------------------------------------------------


WHITENING_EPSILON = 5e-4  # added to the variances, so that noise is not amplified (Jordan 2024)
WHITENING_SLICE = 500  # images whose patches are in memory at once: 4 * 8 times the size of the pixels


@torch.no_grad()
def whiten(model: ResNet, images: Tensor) -> None:
    """Set the stem's filters of `model` from uint8 images (N, 32, 32, 3); a few thousand suffice."""
    moments, count = torch.zeros(12, 12, dtype=torch.float64), 0
    for part in torch.split(images, WHITENING_SLICE):
        corners = normalise(part).cpu().double().unfold(2, 2, 1).unfold(3, 2, 1)  # (N, 3, H - 1, W - 1, 2, 2)
        patches = corners.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        moments += patches.T @ patches
        count += len(patches)
    variances, directions = torch.linalg.eigh(moments / count)  # a column each, smallest first
    scaled = (directions / (variances + WHITENING_EPSILON).sqrt()).T.flip(0).view(-1, 3, 2, 2)
    model.conv1.weight.copy_(torch.cat([scaled, -scaled]))
    nn.init.zeros_(model.conv1.bias)  # type: ignore[arg-type]  # a whitened stem has one


# --- batch normalisations folded into the convolutions before them ------------------------------------------


def folded(model: ResNet) -> ResNet:
    """A copy in evaluation mode, channels_last, with folded norms; logits agree within rounding.

    In all our modules a batch normalisation follows the child just before it.  One after max-pooling is kept: a
    negative scale would turn the maximum into the minimum.
    """
    result = copy.deepcopy(model).eval()
    for module in list(result.modules()):
        for (name, convolution), (follower, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module.register_module(name, fuse_conv_bn_eval(convolution, norm))
                module.register_module(follower, nn.Identity())
    return result.to(memory_format=torch.channels_last)


# --- weights.safetensors: a model's parameters and buffers, float32, with its ModelConfig in the metadata ---


def save(path: Path, state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Write a state dict of `config` atomically; equal weights give equal bytes."""
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    # One key only: safetensors writes several in a random order, and the file's sha256 would vary.
    metadata = {"model": json.dumps(dataclasses.asdict(config))}
    atomic.write_bytes(path, to_bytes(tensors, metadata))


def load(path: Path, config: ModelConfig) -> ResNet:
    """The model with the weights in `path`: float32, CPU, channels_last, eval mode; BadData if damaged or another's."""
    try:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        with torch.device("meta"):  # shapes only
            model = ResNet(config)
        model.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError) as error:
        reason = first_line(error)
        raise BadData(f"{path} does not hold weights of model {config.name} ({reason}): train it again") from error
    return model.to(memory_format=torch.channels_last).eval()
