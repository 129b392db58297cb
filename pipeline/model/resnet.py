"""The residual networks: stem, stages, global average pooling, one linear layer.

A ModelConfig gives widths, blocks and strides.  Stages consist of BasicBlocks: He et al., "Deep Residual Learning for
Image Recognition" (2015), with the 3x3 stem without max-pooling that 32-pixel images need; the first block downsamples.
A `pooled` model has fewer, wider layers and learns faster: a stage is a convolution with max-pooling, then residual
convolutions; norms learn a bias alone, and the head is max-pooled, too.  This is the network of Jordan's "94% on
CIFAR-10 in 3.29 Seconds on a Single GPU" (2024, arXiv:2404.00498) with shortcuts.

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
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, dropout, gelu, relu
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.config import CLASSES, MEAN, STD
from pipeline.errors import BadData, first_line
from pipeline.model.convolution import Convolution
from pipeline.model.norm import BatchNorm
from pipeline.recipes import ModelConfig
from pipeline.store import atomic


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the first convolution has the stride.

    The shortcut is the identity, or a 1x1 convolution with batch normalisation where the shape changes.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(channels_in, channels, stride)
        self.bn1 = BatchNorm(channels)
        self.conv2 = Convolution(channels, channels)
        self.bn2 = BatchNorm(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False))
            self.shortcut.append(BatchNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class PooledConvolution(nn.Module):
    """gelu(bn(max_pool(conv(x)))), initialised as the identity; only the convolution works at full resolution."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = Convolution(channels_in, channels)
        nn.init.dirac_(self.conv.weight[:channels_in])
        self.pool = nn.MaxPool2d(stride)
        self.bn = unscaled_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H // stride, W // stride)."""
        return gelu(self.bn(self.pool(self.conv(x))))


class ResidualConvolution(nn.Module):
    """gelu(bn(x + conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, residual=True)
        self.bn = unscaled_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        return gelu(self.bn(self.conv(x)))


def unscaled_norm(channels: int) -> BatchNorm:
    """A batch normalisation that learns a bias alone; its statistics follow the weights fast (momentum 0.4)."""
    norm = BatchNorm(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


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
            self.bn1 = BatchNorm(config.stem)
        self.stages = nn.Sequential()
        channels = config.stem
        for width, blocks, stride in zip(config.widths, config.blocks, config.strides, strict=True):
            stage = nn.Sequential()
            if config.pooled:
                stage.append(PooledConvolution(channels, width, stride))
                stage.extend(ResidualConvolution(width) for _ in range(blocks))
            else:
                stage.append(BasicBlock(channels, width, stride))
                stage.extend(BasicBlock(width, width, 1) for _ in range(blocks - 1))
            self.stages.append(stage)
            channels = width
        self.fc = nn.Linear(channels, CLASSES)
        if config.pooled:
            nn.init.normal_(self.fc.weight, std=1 / channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), 32 pixels a side as a rule -> logits (B, 10)."""
        logits: Tensor = self.fc(dropout(self.features(x), self.dropout, self.training))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> the linear layer's input, (B, the last width)."""
        activation = gelu if self.config.pooled else relu
        pool = adaptive_max_pool2d if self.config.pooled else adaptive_avg_pool2d
        return pool(self.stages(activation(self._stem(x))), 1).flatten(1)

    def _stem(self, x: Tensor) -> Tensor:
        if not self.config.whitened:
            return self.bn1(self.conv1(x))  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16 the faintest directions would be lost
            stem: Tensor = self.conv1(x)
        if torch.is_autocast_enabled(x.device.type):
            stem = stem.to(torch.get_autocast_dtype(x.device.type))
        return stem


def build(config: ModelConfig, seed: int) -> ResNet:
    """The model on the CPU with PyTorch's default initialisation from `seed`; restores the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ResNet(config)


# --- normalisation: training and prediction must share it to the bit ---------------------------------------


def normalise(images: Tensor) -> Tensor:
    """RGB images (B, H, W, 3), 0..255, uint8 or float32 -> float32 (B, 3, H, W), (x / 255 - MEAN) / STD a channel.

    The result keeps the channels_last layout, which convolutions prefer; on MPS it is contiguous, since there the
    gradients of channels_last norms and max-pooling are wrong or crash (PyTorch issues 175189 and 175190).
    """
    mean, std = _constants(images.device)
    pixels = images.permute(0, 3, 1, 2)
    if images.device.type == "mps":
        pixels = pixels.contiguous()
    return torch.sub(pixels, mean).div_(std)  # two passes over memory instead of three


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

    A batch normalisation follows its convolution, or the max-pooling after it: that one has no negative scales, which
    would turn the maximum into the minimum (`unscaled_norm`).
    """
    result = copy.deepcopy(model).eval()
    for module in list(result.modules()):
        children = [child for child in module.named_children() if not isinstance(child[1], nn.MaxPool2d)]
        for (name, convolution), (follower, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                if isinstance(convolution, Convolution):
                    convolution.weight, convolution.residual = nn.Parameter(convolution.filters()), False
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
