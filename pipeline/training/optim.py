"""The optimizers, PyTorch's own: fused where they are, and on CUDA ready to be captured in a graph."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.recipes import TrainConfig


def build(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of `config` for the trainable parameters of `network`, on their device."""
    groups = _groups(network, config)
    on = next(network.parameters()).device
    cuda = on.type == "cuda"
    # A graph replays what it saw: only a rate that lies on the device can change between two replays.
    rate: Any = torch.tensor(config.learning_rate, device=on) if cuda else config.learning_rate
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=rate, fused=True, capturable=cuda)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, fused=True, capturable=cuda)
        case "sgd":
            nesterov = config.momentum > 0
            return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=nesterov, fused=True)
        case "rmsprop":  # has no fused form
            return torch.optim.RMSprop(groups, lr=rate, momentum=config.momentum, capturable=cuda)


def _groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """All parameters, or with `decay_norms` off, norms and biases in a group of their own without decay."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if config.decay_norms:
        return [{"params": parameters, "weight_decay": config.weight_decay}]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups the learning rate `rate`, without making the host wait."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


# --- The learning rate as a pure function of the step, so that no state of it needs saving.


DROPS = (0.5, 0.75)  # shares of the run after which "step" divides the rate by ten, as He et al. (2015) did
ONE_CYCLE_START = 1 / 25  # of the peak (Smith and Topin 2017, as torch's OneCycleLR has it)


def learning_rate(step: int, total_steps: int, warmup_steps: float, peak: float, shape: str = "linear") -> float:
    """The rate of step `step` (0-based) under the schedule `shape`, one of SHAPES.

    It rises linearly from 0 (one-cycle: as a cosine, from a 25th of the peak) over the warm-up, then falls to 0,
    or with "step" to a tenth, twice.  The first step's rate is above 0 (a step at rate 0 would be wasted), and 0
    would be reached by the step after the last.
    """
    rising = (step + 1) / warmup_steps if warmup_steps > 0 else 1.0
    if shape == "one-cycle" and rising < 1:
        return peak * (ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - math.cos(math.pi * rising)) / 2)
    left = (total_steps - step) / (total_steps - warmup_steps) if warmup_steps < total_steps else 1.0
    return peak * min(rising, SHAPES[shape](min(left, 1.0), step / total_steps))


def _linear(left: float, _done: float) -> float:
    return left


def _cosine(left: float, _done: float) -> float:
    return (1 - math.cos(math.pi * left)) / 2


def _step(_left: float, done: float) -> float:
    return float(0.1 ** sum(done >= drop for drop in DROPS))


# From the share of the fall that is left (1 .. 0) and the share of the run that is done to a share of the peak.
SHAPES: Mapping[str, Callable[[float, float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "step": _step,
    "one-cycle": _cosine,
}


# --- The exponential moving average of a network's weights and batch statistics.


class Averages:
    """avg <- decay * avg + (1 - decay) * weights after each step, from zero.

    Divided by 1 - decay**steps (as Adam corrects its moments; Kingma and Ba 2014) it is a weighted mean of the
    weights that were visited, and owes nothing to the initial ones however short the run is.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
        self._sums = {k: torch.zeros_like(v) for k, v in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights in; waits for nothing."""
        torch._foreach_lerp_(list(self._sums.values()), list(self._live.values()), 1 - self.decay)

    def weights(self, steps: int) -> dict[str, Tensor]:
        """The averages after `steps` updates, by the names of the network's state dict."""
        correction = 1 - self.decay**steps
        return {name: total / correction for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return self._sums

    def load_state_dict(self, sums: dict[str, Tensor]) -> None:
        """The inverse, in place.

        Raises:
            KeyError, RuntimeError: they are another network's.
        """
        for name, total in self._sums.items():
            total.copy_(sums[name])
