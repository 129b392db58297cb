import dataclasses
import math
from typing import Any

import pytest
import torch

from pipeline.model.resnet import build
from pipeline.recipes import MODELS, PRESETS, Optimizer, Schedule
from pipeline.training import optim
from pipeline.training.optim import EMA, learning_rate

CONFIG = dataclasses.replace(PRESETS["rehearsal"], learning_rate=0.02, weight_decay=0.01, momentum=0.8)

# --- optimizers -------------------------------------------------------------------------------------------

OPTIONS: dict[Optimizer, dict[str, Any]] = {
    "adam": {}, "adamw": {}, "sgd": {"momentum": 0.8, "nesterov": True},
}  # fmt: skip


def broken_when_fused(*_arguments: object, **_options: object) -> None:
    raise RuntimeError("fused kernels are missing\nfor this device")


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_optimizer_is_pytorchs_plain_one_on_channels_last_also_where_the_fused_one_fails(
    name: Optimizer, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        for kernel in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_"):
            monkeypatch.setattr(torch, kernel, broken_when_fused)
    ours, theirs = (build(CONFIG.model, 0) for _ in range(2))
    ours.to(memory_format=torch.channels_last)
    config, lines = dataclasses.replace(CONFIG, optimizer=name, schedule="step", warmup_epochs=0.0), list[str]()
    fast, kind = optim.build(ours, config, lines.append), optim.KINDS[name]
    slow = kind(theirs.parameters(), lr=0.02, weight_decay=0.01, foreach=False, **OPTIONS[name])  # type: ignore[call-arg]
    assert type(fast) is kind and kind.__name__.lower() == name
    warned = [f"the fused {name} fails here (fused kernels are missing): using PyTorch's plain one"]
    assert lines == ([] if fused else warned)
    assert bool(fast.defaults.get("fused")) == fused
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        optim.set_learning_rate(fast, config, step, steps_per_epoch=10)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b.grad = torch.randn(b.shape, generator=generator)
            a.grad = torch.empty_like(a).copy_(b.grad)
        fast.step()
        slow.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_norms_and_biases_decay_only_if_asked() -> None:
    model = build(CONFIG.model, 0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = dataclasses.replace(CONFIG, optimizer="adamw", decay_norms=False)
    optimizer = optim.build(model, config)
    optim.set_learning_rate(optimizer, config, 10, steps_per_epoch=10)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == (p.dim() <= 1), name
    (group,) = optim.build(model, CONFIG).param_groups
    assert len(group["params"]) == len(before) and group["weight_decay"] == 0.01


@pytest.mark.parametrize("bf16", [False, True])
def test_muon_moves_filters_by_orthogonal_updates_at_a_fixed_norm_and_the_rest_by_sgd(bf16: bool) -> None:
    model = build(MODELS["fast"], 0).to(memory_format=torch.channels_last)
    config = dataclasses.replace(CONFIG, optimizer="muon", weight_decay=0.5, momentum=0.6)
    optimizer = optim.build(model, config)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sgd = {name: torch.nn.Parameter(p.detach().clone()) for name, p in named.items() if p.dim() != 4}
    scales = {name: optim.OTHERS if name.startswith("fc.") else optim.BIASES for name in sgd}
    theirs = [torch.optim.SGD([p], lr=0.02 * scales[name], momentum=0.85, nesterov=True) for name, p in sgd.items()]
    generator = torch.Generator().manual_seed(0)
    for step in range(2):
        optim.set_learning_rate(optimizer, dataclasses.replace(config, schedule="step", warmup_epochs=0.0), 0, 10)
        before = {name: p.detach().clone() for name, p in named.items()}
        for name, p in named.items():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
            if name in sgd:
                sgd[name].grad = p.grad.clone()
                sgd[name].data.mul_(1 - 0.02 * 0.5)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            optimizer.step()
        for other in theirs:
            other.step()
        for name, p in named.items():
            if name in sgd:
                torch.testing.assert_close(p, sgd[name])
                continue
            update = (p.detach() - before[name] * len(p) ** 0.5 / before[name].norm()).flatten(1) / -0.02
            singular = torch.linalg.svdvals(update)
            assert singular.min() > 0.3 and singular.max() < 1.5, (name, step)
            assert p.grad is not None and (update * p.grad.flatten(1)).sum() > 0  # against the gradient


# --- the learning rate ------------------------------------------------------------------------------------


def rates(schedule: Schedule = "linear", steps: int = 12, warmup: float = 4, peak: float = 1.0) -> list[float]:
    """Of a run of as many epochs, each of one step."""
    config = dataclasses.replace(
        CONFIG, learning_rate=peak, epochs=steps, warmup_epochs=float(warmup), schedule=schedule
    )
    return [learning_rate(config, step, 1) for step in range(steps)]


COSINE = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rates(steps=10, peak=1.2), [0.3, 0.6, 0.9, 1.2, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2]),
        (rates(steps=4, warmup=0.0), [1.0, 0.75, 0.5, 0.25]),
        (rates(steps=4, warmup=1.5), [2 / 3, 1.0, 0.8, 0.4]),
        (rates(steps=4, warmup=4.0), [0.25, 0.5, 0.75, 1.0]),
        (rates("cosine"), [0.25, 0.5, 0.75, 1.0, *COSINE]),
        (rates("step"), [0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
    ],
)
def test_it_rises_linearly_then_falls_by_its_schedule_to_zero(found: list[float], expected: list[float]) -> None:
    assert found == pytest.approx(expected)


def test_one_cycle_rises_as_torchs_does() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=12, pct_start=5 / 12, cycle_momentum=False)
    expected = []
    for _ in range(4):
        optimizer.step()
        theirs.step()
        expected.append(theirs.get_last_lr()[0])
    # Ours skips their first step (the lowest rate) and ends at 0 after the last one.
    assert rates("one-cycle") == pytest.approx([*expected, *COSINE])


# --- EMA --------------------------------------------------------------------------------------------------


def test_the_ema_is_the_weighted_mean_of_what_was_visited_and_survives_the_checkpoint() -> None:
    model = build(MODELS["rehearsal"], seed=0)
    ema, visited = EMA(model, 0.8), list[float]()
    for step in range(5):
        with torch.no_grad():
            model.fc.bias.fill_(float(step))
            model.get_buffer("bn1.running_mean").fill_(10.0 * step)
        ema.update()
        visited.append(float(step))
        weights = [0.8 ** (step - k) for k in range(step + 1)]
        expected = sum(w * v for w, v in zip(weights, visited, strict=True)) / sum(weights)
        assert ema.weights(step + 1)["fc.bias"].tolist() == pytest.approx([expected] * 10)
        assert ema.weights(step + 1)["bn1.running_mean"][0].item() == pytest.approx(10 * expected)
    other = EMA(build(MODELS["rehearsal"], seed=1), 0.8)
    other.load({name: total.clone() for name, total in ema.sums.items()})
    assert all(torch.equal(other.weights(5)[name], value) for name, value in ema.weights(5).items())
