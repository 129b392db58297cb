"""What a network costs: parameters, multiply-accumulates, memory.  Counted on the meta device, in no time.

The memory table counts as torchsummary 1.5.1 does, because the paper's does: batch 1, 4 bytes a value; the
outputs of all modules but containers, BasicBlocks included, and as much again for their gradients; 1 MB is
2**20 bytes.  Functions (ReLU, pooling) have no module and go uncounted.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import IMAGE_SIZE, PARAMETER_BUDGET
from pipeline.errors import UsageError
from pipeline.model.resnet import ResNet, build_without_memory
from pipeline.recipes import ModelConfig

BYTES = 4  # of a 32-bit float
MB = 2**20  # bytes


@dataclass(frozen=True)
class Layer:
    """One module that torchsummary counts."""

    name: str
    kind: str
    output: tuple[int, ...]  # shape, without the batch
    parameters: int  # its own; a BasicBlock's belong to its layers


@dataclass(frozen=True)
class Summary:
    """The costs of one image through the network."""

    parameters: int
    trainable: int
    macs: int  # multiply-accumulates of convolutions and linear layers
    layers: tuple[Layer, ...]

    @property
    def input_mb(self) -> float:
        """Memory of the image."""
        return 3 * IMAGE_SIZE**2 * BYTES / MB

    @property
    def forward_backward_mb(self) -> float:
        """Memory of the layers' outputs and of their gradients."""
        return 2 * sum(math.prod(layer.output) for layer in self.layers) * BYTES / MB

    @property
    def parameters_mb(self) -> float:
        """Memory of the parameters."""
        return self.parameters * BYTES / MB

    @property
    def total_mb(self) -> float:
        """All of it."""
        return self.input_mb + self.forward_backward_mb + self.parameters_mb

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints; memory to two decimals, as in the paper."""
        return {
            "parameters": self.parameters,
            "trainable": self.trainable,
            "macs": self.macs,
            "input_mb": round(self.input_mb, 2),
            "forward_backward_mb": round(self.forward_backward_mb, 2),
            "parameters_mb": round(self.parameters_mb, 2),
            "total_mb": round(self.total_mb, 2),
        }


def summarise(config: ModelConfig) -> Summary:
    """Count everything about the network that `config` describes."""
    network = build_without_memory(config).eval()
    layers: list[Layer] = []
    for name, module in network.named_modules():
        if module is not network and not isinstance(module, nn.Sequential):
            module.register_forward_hook(_recorder(layers, name))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta"))
    return Summary(
        parameters=sum(p.numel() for p in network.parameters()),
        trainable=trainable_parameters(network),
        macs=counter.get_total_flops() // 2,  # one multiplication and one addition each
        layers=tuple(layers),
    )


def _recorder(layers: list[Layer], name: str) -> Any:
    """A forward hook that appends the module's card to `layers`."""

    def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        own = sum(p.numel() for p in module.parameters(recurse=False))
        layers.append(Layer(name, type(module).__name__, tuple(output.shape[1:]), own))

    return record


def trainable_parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def check_budget(config: ModelConfig) -> int:
    """The number of trainable parameters, if the competition allows it.

    Raises:
        UsageError: it is over the budget.
    """
    network: ResNet = build_without_memory(config)
    count = trainable_parameters(network)
    if count > PARAMETER_BUDGET:
        raise UsageError(
            f"model {config.name} has {count:,} trainable parameters, and the competition allows "
            f"{PARAMETER_BUDGET:,}: choose another with --model (`python -m pipeline.model` counts), or train it with "
            "--baseline, only to compare"
        )
    return count
