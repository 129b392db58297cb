"""The optimizers (PyTorch's, fused where possible, and Muon), the learning rate, the EMA."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import Log, first_line
from pipeline.recipes import Optimizer, TrainConfig

KINDS: dict[Optimizer, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def build(model: nn.Module, config: TrainConfig, log: Log = lambda _: None) -> torch.optim.Optimizer:
    """The optimizer of `config` for the trainable parameters of `model`; `set_learning_rate` before each step.

    With `decay_norms` off, norms and biases are a group of their own without decay.
    """
    if config.optimizer == "muon":
        return Muon(model, config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": parameters, "weight_decay": config.weight_decay}]
    if not config.decay_norms:
        decayed, norms = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    options: dict[str, Any] = {"lr": 0.0}
    if config.optimizer == "sgd":
        options |= {"momentum": config.momentum, "nesterov": config.momentum > 0}
    kind = KINDS[config.optimizer]
    try:
        probe = torch.zeros(1, device=parameters[0].device, requires_grad=True)
        probe.grad = torch.zeros_like(probe)
        kind([probe], lr=0.0, fused=True).step()  # type: ignore[call-arg]
        options["fused"] = True
    except Exception as error:  # whatever it is: use the plain one
        log(f"the fused {config.optimizer} fails here ({first_line(error)}): using PyTorch's plain one")
    return kind(groups, **options)


# --- Muon -------------------------------------------------------------------------------------------------

# Learning rates relative to the filters, for batches of 1,000 images (after Jordan et al. 2024, airbench94_muon).
BIASES, OTHERS = 221.0, 0.043
OTHERS_MOMENTUM = 0.85
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of a quintic that brings singular values near 1 in few steps
NEWTON_SCHULZ_STEPS = 3


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for the filters of convolutions, SGD for everything else, both with Nesterov momentum.

    A convolution's filters, as a matrix (out, height * width * in), move by their gradient with all singular values
    brought near 1, so that rare directions are learned as well as frequent ones.  Their norm is kept at sqrt(out): the
    batch normalisation that follows makes it meaningless.  torch.optim.Muon takes matrices only.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        filters = [p for _, p in named if p.dim() == 4]
        biases = [p for name, p in named if p.dim() == 1 and name.endswith("bias") and name != "fc.bias"]
        others = [p for _, p in named if not any(p is known for known in (*filters, *biases))]
        groups = [
            {"params": filters, "scale": 1.0, "momentum": config.momentum},
            {"params": biases, "scale": BIASES, "momentum": OTHERS_MOMENTUM},
            {"params": others, "scale": OTHERS, "momentum": OTHERS_MOMENTUM},
        ]
        super().__init__(groups, {"lr": 0.0, "weight_decay": config.weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all parameters by their gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:  # the stem's bias, once it is fixed
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                momentum = state["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(p.grad)
                update = p.grad.add(momentum, alpha=group["momentum"])
                if p.dim() == 4:
                    p.mul_(len(p) ** 0.5 / p.norm())
                    rows = update.permute(0, 2, 3, 1)  # channels_last: a view
                    update = orthogonalised(rows.flatten(1)).view_as(rows).permute(0, 3, 1, 2)
                else:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * group["scale"])


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with its own singular vectors and singular values near 1, by Newton-Schulz iterations.

    Within autocast it is computed in autocast's precision, which suffices (Jordan et al. 2024).
    """
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrix / (matrix.norm() + 1e-7)  # no singular value above 1
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if tall := len(x) > x.shape[1]:  # the Gram matrix of the shorter side is the smaller one
        x = x.T
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


# --- the learning rate: a pure function of the step, without state to save --------------------------------

DROPS = (0.5, 0.75)  # shares of the run after which "step" divides the lr by ten, as in He et al. (2015)
ONE_CYCLE_START = 1 / 25  # of the peak (Smith and Topin 2017, as in torch's OneCycleLR)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps_per_epoch: int) -> None:
    """Set the learning rate of step `step` (0-based) for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step, steps_per_epoch)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (0-based) of the run.

    The first step has lr > 0 (a step at 0 would be wasted); the step after the last would have 0.
    """
    total, warmup = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    warm = min((step + 1) / warmup, 1.0) if warmup > 0 else 1.0  # from 0 to 1 over the warm-up
    left = min((total - step) / (total - warmup), 1.0) if warmup < total else 1.0  # from 1 to 0 after it
    match config.schedule:
        case "linear":
            share = min(warm, left)
        case "cosine":
            share = min(warm, _cosine(left))
        case "one-cycle":
            share = min(ONE_CYCLE_START + (1 - ONE_CYCLE_START) * _cosine(warm), _cosine(left))
        case "step":
            share = min(warm, 0.1 ** sum(step / total >= drop for drop in DROPS))
    return config.learning_rate * share


def _cosine(share: float) -> float:
    """Half a cosine, from 0 to 1."""
    return (1 - math.cos(math.pi * share)) / 2


# --- the EMA of a model's weights and batch statistics -----------------------------------------------------


class EMA:
    """ema <- decay * ema + (1 - decay) * weights after each step, from zero.

    Divided by 1 - decay**steps, Adam's bias correction (Kingma and Ba 2014), it is a weighted mean of the visited
    weights, unbiased by the initial ones however short the run.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        self.sums = {k: torch.zeros_like(v) for k, v in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the model's present weights, without host synchronisation."""
        torch._foreach_lerp_(list(self.sums.values()), list(self._live.values()), 1 - self.decay)

    def weights(self, steps: int) -> dict[str, Tensor]:
        """The average after `steps` updates, by the names of the model's state dict."""
        correction = 1 - self.decay**steps
        return {name: total / correction for name, total in self.sums.items()}

    def load(self, sums: dict[str, Tensor]) -> None:
        """Load the sums of a checkpoint; KeyError or RuntimeError if they belong to another model."""
        for name, total in self.sums.items():
            total.copy_(sums[name])
