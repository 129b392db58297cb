import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from pipeline.model.resnet import build
from pipeline.recipes import PRESETS
from pipeline.training import optim

CONFIG = dataclasses.replace(PRESETS["rehearsal"], learning_rate=0.05, weight_decay=0.01, momentum=0.8)
Maker = Callable[[Iterator[Parameter]], torch.optim.Optimizer]
PLAIN: dict[str, Maker] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.01, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, weight_decay=0.01, momentum=0.8, nesterov=True, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, weight_decay=0.01, momentum=0.8, foreach=False),
}


@pytest.mark.parametrize("name", PLAIN)
def test_each_optimizer_is_pytorchs_plain_one(name: Any) -> None:
    ours, theirs = build(CONFIG.model, 0), build(CONFIG.model, 0)
    fast = optim.build(ours, dataclasses.replace(CONFIG, optimizer=name))
    slow = PLAIN[name](theirs.parameters())
    optim.set_rate(fast, 0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        fast.step()
        slow.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_norms_and_biases_decay_only_if_asked() -> None:
    network = build(CONFIG.model, 0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = optim.build(network, dataclasses.replace(CONFIG, optimizer="adamw", decay_norms=False))
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in network.named_parameters():
        decayed = p.dim() > 1
        assert torch.equal(p, before[name]) != decayed, name
    # With decay_norms all of them shrink.
    group = optim.build(network, CONFIG).param_groups
    assert len(group) == 1 and len(group[0]["params"]) == len(before)
