import copy
import dataclasses
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from pipeline.model.resnet import build, normalise
from pipeline.recipes import PRESETS, WHITENED_STEM, ModelConfig, TrainConfig
from pipeline.training.device import Device
from pipeline.training.inference import logits
from pipeline.training.state import State, start
from pipeline.training.step import TrainStep

CPU = Device("cpu", "fp32")
CONFIG = dataclasses.replace(PRESETS["rehearsal"], batch_size=32)
GENERATOR = np.random.default_rng(0)
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8))
LABELS = torch.from_numpy(GENERATOR.integers(0, 10, 32))


def trained(config: TrainConfig, steps: int = 3, device: Device = CPU, **options: Any) -> State:
    state = start(config, device)
    state.model.train()
    step = TrainStep(state, config, device, 100, **options)
    for _ in range(steps):
        step(IMAGES, LABELS)
    return state


def same(a: State, b: State) -> bool:
    return all(torch.equal(value, b.model.state_dict()[name]) for name, value in a.model.state_dict().items())


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_steps_equal_the_textbooks_and_mixed_targets_weigh_both_labels(share: float) -> None:
    """The whole step against plain PyTorch: NCHW images, unfused Adam, no autocast."""
    config = dataclasses.replace(
        PRESETS["paper"], model=CONFIG.model, learning_rate=1e-4, warmup_epochs=0.0, schedule="step"
    )
    state = start(config, CPU)
    model = build(config.model, config.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-4, foreach=False)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    step, total = TrainStep(state, config, CPU, 391), 0.0
    images, labels, others = IMAGES[:16], LABELS[:16], LABELS[16:]
    mixed = share * torch.eye(10)[labels] + (1 - share) * torch.eye(10)[others]
    for _ in range(3):
        step(images, labels if share == 1 else mixed)
        output = model(normalise(images).contiguous())
        loss = share * criterion(output, labels) + (1 - share) * criterion(output, others)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * 16
    assert state.loss_sum.item() == pytest.approx(total, rel=1e-3)  # Adam magnifies rounding near gradient 0
    assert (state.step, state.updates) == (3, 3)


def test_the_learning_rate_is_the_schedules() -> None:
    config = dataclasses.replace(CONFIG, learning_rate=0.5, epochs=2, warmup_epochs=1.0)
    state = start(config, CPU)
    step, found = TrainStep(state, config, CPU, 2), []
    for _ in range(4):
        step(IMAGES, LABELS)
        found.append(state.optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.25, 0.5, 0.5, 0.25])


def test_a_whitened_stems_bias_learns_in_the_first_third_of_the_run_alone() -> None:
    model = ModelConfig("small", WHITENED_STEM, (8,), (1,), (2,), pooled=True, whitened=True)
    config = dataclasses.replace(PRESETS["fast"], model=model, epochs=3, batch_size=32)
    state = start(config, CPU)
    step, moved = TrainStep(state, config, CPU, 2), []
    for _ in range(6):
        before = copy.deepcopy(state.model.state_dict())
        step(IMAGES, LABELS)
        after = state.model.state_dict()
        moved.append([not torch.equal(before[name], after[name]) for name in ("conv1.bias", "stages.0.0.conv.weight")])
    assert moved == 2 * [[True, True]] + 4 * [[False, True]]


# --- teachers, dropout and EMA ----------------------------------------------------------------------------


def test_distillation_adds_the_divergence_from_the_teachers_mean_at_the_temperature() -> None:
    config = dataclasses.replace(CONFIG, distillation_weight=0.25, distillation_temperature=2.0)
    teachers = [build(CONFIG.model, seed) for seed in (1, 2)]
    soft = torch.stack([softmax(logits(model.eval(), IMAGES, CPU) / 2, 1) for model in teachers]).mean(0)
    student = start(config, CPU)
    student.model.train()
    output = logits(copy.deepcopy(student.model), IMAGES, CPU)
    divergence = (soft * (soft.log() - softmax(output / 2, 1).log())).sum() * 4
    plain = cross_entropy(output, LABELS, label_smoothing=config.label_smoothing, reduction="sum")
    TrainStep(student, config, CPU, 100, teachers=teachers)(IMAGES, LABELS)
    torch.testing.assert_close(student.loss_sum, (0.75 * plain + 0.25 * divergence).detach())
    assert all(parameter.grad is None for model in teachers for parameter in model.parameters())


def test_dropout_takes_effect_and_depends_on_the_step_alone() -> None:
    config = dataclasses.replace(CONFIG, dropout=0.5)
    first = trained(config)
    torch.manual_seed(99)  # whatever else draws from the global generator
    assert same(first, trained(config))
    assert not same(first, trained(CONFIG))
    constant = dataclasses.replace(config, schedule="step", warmup_epochs=0.0)
    later = start(constant, CPU)
    later.updates = 7
    TrainStep(later, constant, CPU, 100)(IMAGES, LABELS)
    assert not same(later, trained(constant, steps=1))


def test_the_ema_is_what_is_selected() -> None:
    state = trained(dataclasses.replace(CONFIG, ema_decay=0.5), steps=4)
    assert state.ema is not None and state.updates == 4
    weights = state.ema.weights(4)
    assert all(torch.equal(state.select().state_dict()[name], value) for name, value in weights.items())
    assert not torch.equal(weights["fc.weight"], state.model.fc.weight)
    plain = trained(CONFIG)
    assert plain.select() is plain.model


# --- compilation ------------------------------------------------------------------------------------------

COMPILED = dataclasses.replace(CPU, compiled=True)
SMALL = dataclasses.replace(CONFIG, model=ModelConfig("small", 8, (8,), (1,), (2,)))
PLAIN_COMPILE = torch.compile


def compile_as(patch: pytest.MonkeyPatch, compiled: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Let compiled models compute this, of the plain one and its images."""
    patch.setattr(torch, "compile", lambda model, **_options: partial(compiled, model))


def test_a_compiled_model_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another backend than Inductor, which takes minutes."""
    monkeypatch.setattr(torch, "compile", lambda model, **_options: PLAIN_COMPILE(model, backend="eager"))
    compiled = trained(SMALL, device=COMPILED, uncompiled=mock.Mock(side_effect=AssertionError))
    for name, value in trained(SMALL).model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


DYNAMO = "error: Dynamo is not supported on Python 4"
CRASH = AssertionError("CppCompileError: C++ compile error\n\nOutput:\nx.cpp:1:10: fatal error: no Python.h")
CAPTURING = "error: operation not permitted when stream is capturing"


@pytest.mark.parametrize(
    ("fails_at", "error", "cause"),
    [
        (0, RuntimeError(DYNAMO), DYNAMO),  # torch.compile itself
        *((step, CRASH, "fatal error: no Python.h") for step in (1, 2)),
        (2, RuntimeError(f"CUDA {CAPTURING}"), CAPTURING),  # as it records a graph: an error like a device's
    ],
)
def test_a_compiler_that_fails_at_any_time_is_told_once_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, fails_at: int, error: Exception, cause: str
) -> None:
    calls: list[int] = []

    def compiled(model: nn.Module, images: Tensor) -> Tensor:
        calls.append(1)
        output: Tensor = model(images)  # by which the norms' statistics move, and dropout draws
        if len(calls) == fails_at:
            raise error
        return output

    compile_as(monkeypatch, compiled)
    if fails_at == 0:
        monkeypatch.setattr(torch, "compile", mock.Mock(side_effect=error))
    config, lines, told = dataclasses.replace(SMALL, dropout=0.5), list[str](), mock.Mock()
    assert same(trained(config, device=COMPILED, log=lines.append, uncompiled=told), trained(config))
    assert lines[-1] == f"compiling the model fails here ({cause}): training the plain model"
    assert lines[:-1] == (["compiled in 0s"] if fails_at == 2 else []) and len(calls) == fails_at
    told.assert_called_once_with()


def test_the_plain_step_has_the_memory_of_the_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    large: list[weakref.ref[Tensor]] = []
    left: list[Tensor | None] = []

    def compiled(_model: nn.Module, images: Tensor) -> Tensor:
        copied = images.clone()
        large.append(weakref.ref(copied))
        raise torch.OutOfMemoryError("CUDA out of memory")

    compile_as(monkeypatch, compiled)
    state = start(SMALL, CPU)
    state.model.register_forward_pre_hook(lambda *_: left.append(large[0]()))
    TrainStep(state, SMALL, COMPILED, 100)(IMAGES, LABELS)
    assert left == [None]


def test_only_whole_batches_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def compiled(model: nn.Module, images: Tensor) -> Tensor:
        sizes.append(len(images))
        output: Tensor = model(images)
        return output

    compile_as(monkeypatch, compiled)
    step = TrainStep(start(SMALL, COMPILED), SMALL, COMPILED, 100)
    for rows in (32, 20, 32):
        step(IMAGES[:rows], LABELS[:rows])
    assert sizes == [32, 32]


def test_a_device_that_fails_in_the_first_compiled_step_is_no_compilers_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_as(monkeypatch, mock.Mock(side_effect=RuntimeError("CUDA error: unspecified launch failure")))
    with pytest.raises(RuntimeError, match="launch failure"):
        trained(SMALL, device=COMPILED)


def test_cuda_is_compiled_with_its_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda _model, **options: asked.append(options))
    for kind in ("cpu", "cuda"):
        TrainStep(start(SMALL, CPU), SMALL, Device(kind, "bf16", compiled=True), 100)
    assert [options["mode"] for options in asked] == [None, "reduce-overhead"]
