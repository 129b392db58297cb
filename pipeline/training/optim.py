"""How weights change: the optimizers (PyTorch's own, fused where they can be), the learning rate, the EMA."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import Log
from pipeline.recipes import TrainConfig
from pipeline.training.device import first_line

# --- optimizers -------------------------------------------------------------------------------------------


def build(model: nn.Module, config: TrainConfig, log: Log = lambda _: None) -> torch.optim.Optimizer:
    """The optimizer of `config` for the trainable parameters of `model`; `set_learning_rate` before each step."""
    groups = _groups(model, config)
    kind: type[torch.optim.Optimizer]
    options: dict[str, Any] = {"lr": 0.0}
    match config.optimizer:
        case "adam":
            kind = torch.optim.Adam
        case "adamw":
            kind = torch.optim.AdamW
        case "sgd":
            kind = torch.optim.SGD
            options |= {"momentum": config.momentum, "nesterov": config.momentum > 0}
        case "rmsprop":  # has no fused form
            return torch.optim.RMSprop(groups, lr=0.0, momentum=config.momentum)
    if reason := _fused_failure(kind, next(model.parameters()).device):
        log(f"the fused {config.optimizer} fails here ({reason}): taking PyTorch's plain one")
        return kind(groups, **options)
    return kind(groups, **options, fused=True)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """All parameters, or with `decay_norms` off, norms and biases in a group of their own without decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.decay_norms:
        return [{"params": parameters, "weight_decay": config.weight_decay}]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _fused_failure(kind: type[torch.optim.Optimizer], device: torch.device) -> str:
    """Why a fused step fails on the device, "" if it does not."""
    parameter = torch.zeros(1, device=device, requires_grad=True)
    parameter.grad = torch.zeros_like(parameter)
    try:
        kind([parameter], lr=0.0, fused=True).step()  # type: ignore[call-arg]
    except RuntimeError as error:
        return first_line(error)
    return ""


# --- the learning rate, a pure function of the step, so that no state of it needs saving ------------------

DROPS = (0.5, 0.75)  # shares of the run after which "step" divides the learning rate by ten, as He et al. (2015) did
ONE_CYCLE_START = 1 / 25  # of the peak (Smith and Topin 2017, as torch's OneCycleLR has it)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps_per_epoch: int) -> None:
    """Give all parameters the learning rate of step `step` (0-based) of the run."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step, steps_per_epoch)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (0-based) of the run.

    It rises linearly from 0 (one-cycle: as a cosine, from a 25th of the peak) over the warm-up, then falls to 0,
    or with "step" to a tenth, twice.  The first step's is above 0 (a step at 0 would be wasted), and 0 would be
    reached by the step after the last.
    """
    total, warmup = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    rising = (step + 1) / warmup if warmup > 0 else 1.0
    if config.schedule == "one-cycle" and rising < 1:
        return config.learning_rate * (ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - math.cos(math.pi * rising)) / 2)
    left = min((total - step) / (total - warmup), 1.0) if warmup < total else 1.0
    match config.schedule:
        case "linear":
            falling = left
        case "cosine" | "one-cycle":
            falling = (1 - math.cos(math.pi * left)) / 2
        case "step":
            falling = 0.1 ** sum(step / total >= drop for drop in DROPS)
    return config.learning_rate * min(rising, falling)


# --- the exponential moving average of a model's weights and batch statistics -----------------------------


class EMA:
    """ema <- decay * ema + (1 - decay) * weights after each step, from zero.

    Divided by 1 - decay**steps (as Adam corrects its moments; Kingma and Ba 2014) it is a weighted mean of the
    weights that were visited, and owes nothing to the initial ones however short the run is.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        self._sums = {k: torch.zeros_like(v) for k, v in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights in; waits for nothing."""
        torch._foreach_lerp_(list(self._sums.values()), list(self._live.values()), 1 - self.decay)

    def weights(self, steps: int) -> dict[str, Tensor]:
        """The average after `steps` updates, by the names of the model's state dict."""
        correction = 1 - self.decay**steps
        return {name: total / correction for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return self._sums

    def load_state_dict(self, sums: dict[str, Tensor]) -> None:
        """The inverse, in place.

        Raises:
            KeyError, RuntimeError: they are another model's.
        """
        for name, total in self._sums.items():
            total.copy_(sums[name])
