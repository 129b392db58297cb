import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softmax

from pipeline.model.resnet import build
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.training.device import Device
from pipeline.training.inference import logits
from pipeline.training.state import State, start
from pipeline.training.step import Step, Teachers, _changing, _restore, summed_loss

CPU = Device(torch.device("cpu"), "fp32")
CONFIG = dataclasses.replace(PRESETS["rehearsal"], batch_size=32)
GENERATOR = np.random.default_rng(0)
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8))
LABELS = torch.from_numpy(GENERATOR.integers(0, 10, 32))
OUTPUT = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))


def test_the_loss_sums_what_the_textbook_averages() -> None:
    expected = cross_entropy(OUTPUT, LABELS, label_smoothing=0.1) * 32
    torch.testing.assert_close(summed_loss(OUTPUT, LABELS, CONFIG), expected)


def test_mixed_targets_weigh_both_labels() -> None:
    config = dataclasses.replace(CONFIG, label_smoothing=0.0)
    other = LABELS.roll(1)
    targets = 0.7 * torch.eye(10)[LABELS] + 0.3 * torch.eye(10)[other]
    expected = 0.7 * cross_entropy(OUTPUT, LABELS, reduction="sum") + 0.3 * cross_entropy(
        OUTPUT, other, reduction="sum"
    )
    torch.testing.assert_close(summed_loss(OUTPUT, targets, config), expected)


def test_distillation_adds_the_divergence_from_the_teachers() -> None:
    config = dataclasses.replace(CONFIG, distillation_weight=0.25, distillation_temperature=2.0)
    taught = softmax(torch.randn(32, 10, generator=torch.Generator().manual_seed(1)), 1)
    student = softmax(OUTPUT / 2, 1)
    divergence = (taught * (taught.log() - student.log())).sum() * 4
    expected = 0.75 * summed_loss(OUTPUT, LABELS, config) + 0.25 * divergence
    torch.testing.assert_close(summed_loss(OUTPUT, LABELS, config, taught), expected)


def test_teachers_answer_with_their_mean_at_the_temperature() -> None:
    networks = [build(CONFIG.model, seed) for seed in (1, 2)]
    answer = Teachers(networks, 3.0, CPU)(IMAGES)
    expected = torch.stack([softmax(logits(n.eval(), IMAGES, CPU) / 3, 1) for n in networks]).mean(0)
    torch.testing.assert_close(answer, expected)
    assert not answer.requires_grad


def trained(config: TrainConfig, steps: int = 3, **options: Any) -> State:
    state = start(config, CPU)
    state.network.train()
    step = Step(state, config, CPU, **options)
    for _ in range(steps):
        step(IMAGES, LABELS, 1e-3)
    return state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b)


def test_a_teacher_changes_what_is_learned() -> None:
    teachers = Teachers([build(CONFIG.model, 5)], 2.0, CPU)
    taught = trained(CONFIG, teachers=teachers).network.state_dict()
    assert not same(taught, trained(CONFIG).network.state_dict())


def test_dropout_takes_effect_and_depends_on_the_step_alone() -> None:
    config = dataclasses.replace(CONFIG, dropout=0.5)
    first = trained(config)
    torch.manual_seed(99)  # whatever else draws from the global generator
    assert same(first.network.state_dict(), trained(config).network.state_dict())
    assert not same(first.network.state_dict(), trained(CONFIG).network.state_dict())
    later = start(config, CPU)
    later.updates = 7
    step = Step(later, config, CPU)
    step(IMAGES, LABELS, 1e-3)
    assert not same(later.network.state_dict(), trained(config, steps=1).network.state_dict())


def test_averages_are_what_is_selected() -> None:
    config = dataclasses.replace(CONFIG, ema_decay=0.5)
    state = trained(config, steps=4)
    assert state.averages is not None and state.updates == 4
    weights = state.averages.weights(4)
    assert same(state.select().state_dict(), weights)
    assert not torch.equal(weights["fc.weight"], state.network.fc.weight)
    assert same(trained(CONFIG).select().state_dict(), trained(CONFIG).network.state_dict())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("before", [0, 2])
def test_the_warm_up_before_a_capture_leaves_no_trace(optimizer: Any, before: int) -> None:
    """What a CUDA graph needs first, tried on the CPU: steps that are taken back, also from the optimizer."""
    config = dataclasses.replace(CONFIG, optimizer=optimizer, ema_decay=0.9)
    expected = trained(config, steps=before + 2)
    state = trained(config, steps=before)
    copies = {tensor.data_ptr(): tensor.clone() for tensor in _changing(state)}
    step = Step(state, config, CPU)
    for _ in range(3):
        step(IMAGES.flip(2), LABELS.roll(1), 1e-3)
    _restore(state, copies)
    for _ in range(2):
        step(IMAGES, LABELS, 1e-3)
    assert same(state.network.state_dict(), expected.network.state_dict())
    assert state.averages is not None and expected.averages is not None
    assert same(state.averages.state_dict(), expected.averages.state_dict())
    assert torch.equal(state.loss_sum, expected.loss_sum)
