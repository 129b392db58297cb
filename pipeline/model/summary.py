"""The costs of a model: parameters, multiply-accumulates (MACs), memory.

The memory table counts as torchsummary 1.5.1 and the paper do: batch 1, 4 bytes a value; the outputs of all modules but
containers, BasicBlocks included, twice for their gradients; 1 MB is 2**20 bytes.  Functions (ReLU, pooling) are not
modules, so they are not counted.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import IMAGE_SIZE
from pipeline.model.resnet import build
from pipeline.recipes import ModelConfig

VALUE_BYTES = 4  # of a 32-bit float
MB = 2**20  # bytes
HEAD = ("layer", "kind", "output", "parameters", "MACs")


@dataclass(frozen=True)
class Layer:
    """One module that torchsummary counts."""

    name: str
    kind: str
    output: tuple[int, ...]  # shape, without the batch
    parameters: int  # its own; a BasicBlock's belong to its layers
    macs: int  # multiply-accumulates of one image, likewise its own


@dataclass(frozen=True)
class Summary:
    """The costs of one image through the model."""

    parameters: int
    trainable: int
    macs: int  # multiply-accumulates of convolutions and linear layers
    layers: tuple[Layer, ...]

    @property
    def rows(self) -> list[Sequence[str]]:
        """A table row, under HEAD, for each layer."""
        return [
            (layer.name, layer.kind, " x ".join(map(str, layer.output)), f"{layer.parameters:,}", f"{layer.macs:,}")
            for layer in self.layers
        ]

    @property
    def memory(self) -> dict[str, float]:
        """Memory in MB: the image, the layers' outputs with their gradients, the parameters."""
        outputs = sum(math.prod(layer.output) for layer in self.layers)
        values = {"input": 3 * IMAGE_SIZE**2, "forward/backward": 2 * outputs, "parameters": self.parameters}
        return {name: VALUE_BYTES * count / MB for name, count in {**values, "total": sum(values.values())}.items()}

    def to_dict(self) -> dict[str, Any]:
        """The values of `--json`; memory to two decimals, as in the paper."""
        return {
            "parameters": self.parameters,
            "trainable": self.trainable,
            "macs": self.macs,
            **{f"{name.replace('/', '_')}_mb": round(size, 2) for name, size in self.memory.items()},
        }


def summarise(config: ModelConfig) -> Summary:
    """The costs of the model that `config` describes."""
    model = build(config, seed=0).eval()
    layers: list[Layer] = []

    def record(name: str, module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        own = sum(p.numel() for p in module.parameters(recurse=False))
        macs, kind = 0, next(kind for kind in (nn.Conv2d, nn.BatchNorm2d, type(module)) if isinstance(module, kind))
        if isinstance(module, nn.Conv2d | nn.Linear):  # each weight once per output pixel
            macs = module.weight.numel() * math.prod(output.shape[2:])
        layers.append(Layer(name, kind.__name__, tuple(output.shape[1:]), own, macs))

    for name, module in model.named_modules():
        if module is not model and not isinstance(module, nn.Sequential):
            module.register_forward_hook(functools.partial(record, name))
    with torch.no_grad():  # a real image: the meta device takes seconds of imports
        model(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Summary(parameters, trainable, sum(layer.macs for layer in layers), tuple(layers))
