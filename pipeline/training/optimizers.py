"""The optimizers, PyTorch's own: fused where they are, and on CUDA ready to be captured in a graph."""

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
