import dataclasses
import signal
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.store.runs import CHECKPOINT, TENSORBOARD, EpochRow
from pipeline.training import optim
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages
from pipeline.training.loop import Progress, Stopped, Task, fit, open_board, stop_on_signals
from pipeline.training.state import State, start
from pipeline.training.step import Step

CPU = Device(torch.device("cpu"), "fp32")
CONFIG = dataclasses.replace(PRESETS["rehearsal"].with_epochs(2), batch_size=32)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 100)


def task(folder: Path, config: TrainConfig = CONFIG) -> Task:
    training = TrainingImages(IMAGES, LABELS, config, CPU.torch_device)
    return Task(config, training, EvaluationImages(IMAGES, LABELS, CPU.torch_device), CPU, folder, "card")


def fitted(job: Task, state: State) -> None:
    step = Step(state, job.config, CPU, job.training.steps)
    fit(job, state, step, Progress(lambda _: None, job.config.epochs, 4, 100, 0))


def test_the_learning_rates_of_a_run_are_the_schedules(tmp_path: Path) -> None:
    state = start(CONFIG, CPU)
    fitted(task(tmp_path), state)
    # 8 steps, a third of an epoch (4/3 steps) of warm-up.
    assert [row.rate for row in state.rows] == pytest.approx([1e-3 * 5 / (8 - 4 / 3), 1e-3 / (8 - 4 / 3)])
    assert [row.epoch for row in state.rows] == [1, 2]


def test_what_tensorboard_is_shown_changes_no_weight(tmp_path: Path) -> None:
    weights = []
    for name, names in (("plain", ()), ("shown", [f"class{k}" for k in range(10)])):
        (tmp_path / name).mkdir()
        job, state = task(tmp_path / name), start(CONFIG, CPU)
        with closing(open_board(job, state, names)):
            fitted(job, state)
        weights.append(state.model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert list((tmp_path / "shown" / TENSORBOARD).iterdir())


def test_a_loss_that_explodes_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good: list[bytes] = []

    def exploding(_config: TrainConfig, step: int, steps_per_epoch: int) -> float:
        if step == steps_per_epoch and not good:
            good.append((tmp_path / CHECKPOINT).read_bytes())
        return 1e-3 if step < steps_per_epoch else 1e30

    monkeypatch.setattr(optim, "learning_rate", exploding)
    with pytest.raises(PipelineError, match=r"no longer finite in epoch 2, step \d \(lr 1e\+30\): lower") as caught:
        fitted(task(tmp_path), start(CONFIG, CPU))
    assert "the checkpoint of epoch 1 is kept" in str(caught.value)
    assert caught.value.exit_code == 1
    assert (tmp_path / CHECKPOINT).read_bytes() == good[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_aborts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        stop.check()
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(Stopped):
            stop.check()
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


# --- progress ---------------------------------------------------------------------------------------------

ROW = EpochRow(3, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 65.4)
SHOWN = "epoch  3/12  lr 1.00e-03  train 2.000 20.00 %  validation 1.900 30.00 %  100 images/s  0:01:05"


def reported(done: int, last: bool = False, seconds: float = 0.0) -> list[str]:
    """The lines of the third epoch of twelve, `done` steps of 100 after it began, `seconds` later."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        clock = iter([0.0, *[seconds] * 1000])
        patch.setattr("tqdm.std.time", lambda: next(clock))
        progress = Progress(lines.append, epochs=12, steps=100, images=6400, done=200)
        progress.steps(200 + done, loss=2.0)
        progress.epoch([dataclasses.replace(ROW, epoch=k, seconds=60.0) for k in (1, 2)] + [ROW], last)
        progress.close()
    return lines


def test_an_epoch_is_one_line_with_the_time_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(100) == [SHOWN + ", 0:09:24 to go"]  # nine epochs, as the last two took
    assert reported(100, last=True) == [SHOWN]
    assert capsys.readouterr().err == ""


def test_a_long_epoch_says_how_it_stands() -> None:
    within, _ = reported(50, seconds=61.0)
    assert within == "train: 21 %, epoch 3/12, loss 2.000, 52.46 images/s, 19:19 to go"
