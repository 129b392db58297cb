"""The loop by itself; tests/test_train.py has it by the command line: learning, Ctrl-C, kills, resumes."""

import dataclasses
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import console
from pipeline.console import Meter
from pipeline.errors import Log, PipelineError
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.store.runs import CHECKPOINT
from pipeline.training import loop, optim
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages, evaluate
from pipeline.training.loop import Task, fit, stop_on_signals
from pipeline.training.state import State, load_checkpoint, start
from pipeline.training.step import TrainStep

CPU = Device("cpu", "fp32")
CONFIG = dataclasses.replace(PRESETS["rehearsal"].with_epochs(2), batch_size=32)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 100)


def fitted(folder: Path, log: Log = lambda _: None) -> State:
    training = TrainingImages(IMAGES, LABELS, CONFIG, CPU.torch_device)
    job = Task(CONFIG, training, EvaluationImages(IMAGES, LABELS, CPU.torch_device), CPU, folder, "card")
    state = start(CONFIG, CPU)
    with Meter("train:", 200, "img", log) as meter:
        fit(job, state, TrainStep(state, CONFIG, CPU, training.steps), meter, log)
    return state


def test_the_learning_rates_of_a_run_are_the_schedules_and_it_says_how_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_INTERVAL", 0.0)
    lines: list[str] = []
    state = fitted(tmp_path, lines.append)
    epochs = [line for line in lines if line.startswith("epoch ")]
    # 8 steps, a third of an epoch (4/3 steps) of warm-up.
    assert [row.rate for row in state.rows] == pytest.approx([1e-3 * 5 / (8 - 4 / 3), 1e-3 / (8 - 4 / 3)])
    assert [row.epoch for row in state.rows] == [1, 2]
    figures = (
        r"lr [1-9]\.\de-4  train loss 2\.\d{3} acc \d+\.\d%  val loss \d\.\d{3} acc \d+\.\d%  [\d,]+ img/s  \ds left"
    )
    assert [bool(re.fullmatch(f"epoch {k}/2  {figures}", line)) for k, line in zip((1, 2), epochs, strict=True)] == [
        True
    ] * 2
    assert [line for line in lines if line.startswith("train: 50%, epoch 1/2, loss 2.")]


def test_a_loss_that_explodes_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good: list[bytes] = []

    def exploding(_config: TrainConfig, step: int, steps_per_epoch: int) -> float:
        if step == steps_per_epoch and not good:
            good.append((tmp_path / CHECKPOINT).read_bytes())
        return 1e-3 if step < steps_per_epoch else 1e30

    monkeypatch.setattr(optim, "learning_rate", exploding)
    with pytest.raises(
        PipelineError, match=r"the loss is no longer finite in epoch 2, step \d \(lr 1e\+30\): lower"
    ) as caught:
        fitted(tmp_path)
    assert caught.value.exit_code == 1
    assert (tmp_path / CHECKPOINT).read_bytes() == good[0]


def test_a_signal_stops_the_validation_and_no_step_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> tuple[float, float]:
        signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments)

    monkeypatch.setattr(loop, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path)
    state = start(CONFIG, CPU)
    load_checkpoint(tmp_path / CHECKPOINT, state, "card")
    assert (state.epoch, state.step, state.updates) == (0, 4, 4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_aborts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
