import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import BadData, PipelineError
from pipeline.model.resnet import build, normalise
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.store.runs import CHECKPOINT, TENSORBOARD
from pipeline.training import state as states
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages
from pipeline.training.loop import Progress, Task, fit, open_board
from pipeline.training.state import State, start
from pipeline.training.step import Step

PAPER = PRESETS["paper"]
CPU = Device(torch.device("cpu"), "fp32")
CONFIG = dataclasses.replace(PRESETS["rehearsal"].with_epochs(2), batch_size=32)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 100)


def task(folder: Path, config: TrainConfig = CONFIG) -> Task:
    training = TrainingImages(IMAGES, LABELS, config, CPU.torch_device)
    return Task(config, training, EvaluationImages(IMAGES, LABELS, CPU.torch_device), CPU, folder, "card")


def silent(epochs: int) -> Progress:
    return Progress(lambda _: None, epochs, 4, 100, 0)


def test_fused_adam_on_channels_last_equals_the_plain_one() -> None:
    fast, slow = start(PAPER, CPU), start(PAPER, CPU)
    slow.network.to(memory_format=torch.contiguous_format)
    slow.optimizer = torch.optim.Adam(slow.network.parameters(), lr=1e-3, weight_decay=1e-4, foreach=False)
    generator = torch.Generator().manual_seed(0)
    pairs = list(zip(fast.network.parameters(), slow.network.parameters(), strict=True))
    for _ in range(3):
        for a, b in pairs:
            b.grad = torch.randn(b.shape, generator=generator)
            a.grad = b.grad.clone().contiguous(memory_format=layout(a))
        fast.optimizer.step()
        slow.optimizer.step()
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def layout(tensor: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.dim() == 4 else torch.contiguous_format


def test_steps_equal_the_textbooks() -> None:
    """The whole step against plain PyTorch: NCHW images, unfused Adam, no autocast."""
    images, labels = torch.tensor(IMAGES[:16]), torch.tensor(LABELS[:16])
    state = start(PAPER, CPU)
    network = build(PAPER.model, PAPER.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4, foreach=False)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    step, total = Step(state, PAPER, CPU), 0.0
    for _ in range(3):
        step(images, labels, 1e-4)
        loss = criterion(network(normalise(images).contiguous()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * 16
    assert state.loss_sum.item() == pytest.approx(total, rel=1e-3)  # Adam magnifies rounding near gradient 0
    assert state.step == 3


def test_the_rates_of_a_run_are_the_schedules(tmp_path: Path) -> None:
    job = task(tmp_path)
    state = start(CONFIG, CPU)
    fit(job, state, silent(2))
    # 8 steps, a third of an epoch (4/3 steps) of warm-up.
    assert [row.rate for row in state.rows] == pytest.approx([1e-3 * 5 / (8 - 4 / 3), 1e-3 / (8 - 4 / 3)])
    assert [row.epoch for row in state.rows] == [1, 2]


def test_what_tensorboard_is_shown_changes_no_weight(tmp_path: Path) -> None:
    weights = []
    for name, names in (("plain", ()), ("shown", [f"class{k}" for k in range(10)])):
        (tmp_path / name).mkdir()
        state = start(CONFIG, CPU)
        job = dataclasses.replace(task(tmp_path / name), class_names=names)
        with closing(open_board(job, state)) as board:
            fit(job, state, silent(2), board)
        weights.append(state.network.state_dict())
    assert same_tensors(*weights)
    assert size(tmp_path / "shown") > size(tmp_path / "plain") + 50_000


def size(folder: Path) -> int:
    """Bytes of the events in a run's folder."""
    return sum(path.stat().st_size for path in (folder / TENSORBOARD).iterdir())


def test_a_loss_that_explodes_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = start(CONFIG, CPU)
    good: list[bytes] = []

    def exploding(self: Task, epoch: int, step: int) -> float:
        if epoch == 1 and not good:
            good.append((tmp_path / CHECKPOINT).read_bytes())
        return 1e-3 if epoch == 0 else 1e30

    monkeypatch.setattr(Task, "rate", exploding)
    with pytest.raises(PipelineError, match=r"no longer finite in epoch 2, step \d \(rate 1e\+30\): lower") as caught:
        fit(task(tmp_path), state, silent(2))
    assert "the checkpoint of epoch 1 is kept" in str(caught.value)
    assert caught.value.exit_code == 1
    assert (tmp_path / CHECKPOINT).read_bytes() == good[0]


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    state = start(CONFIG, CPU)
    with torch.no_grad():
        state.network.fc.bias[0] = float("nan")
    with pytest.raises(PipelineError, match="the weights are no longer finite"):
        states.save(tmp_path / CHECKPOINT, state, "card")
    assert not list(tmp_path.iterdir())


def test_the_best_epochs_weights_are_kept(tmp_path: Path) -> None:
    state = start(CONFIG, CPU)
    fit(task(tmp_path), state, silent(2))
    best = max(state.rows, key=lambda row: row.validation_accuracy)
    same = all(torch.equal(v, state.best_weights[k]) for k, v in state.network.state_dict().items())
    assert same == (best.epoch == 2)


def saved_state(folder: Path) -> Path:
    states.save(folder / CHECKPOINT, start(CONFIG, CPU), "card")
    return folder / CHECKPOINT


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def garbage(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, garbage, empty])
def test_a_damaged_checkpoint_is_bad_data(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = saved_state(tmp_path)
    damage(path)
    with pytest.raises(BadData, match=r"checkpoint\.pt is damaged .*--force"):
        states.load(path, start(CONFIG, CPU), "card")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = saved_state(tmp_path)
    with pytest.raises(BadData, match="belongs to another run"):
        states.load(path, start(CONFIG, CPU), "other card")


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    state, fresh = start(CONFIG, CPU), start(dataclasses.replace(CONFIG, seed=1), CPU)
    fit(task(tmp_path), state, silent(2))
    states.load(tmp_path / CHECKPOINT, fresh, "card")
    assert (fresh.epoch, fresh.step, fresh.rows) == (2, 0, state.rows)
    assert same_tensors(fresh.network.state_dict(), state.network.state_dict())
    assert same_tensors(fresh.best_weights, state.best_weights)
    assert same_moments(fresh, state)


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def same_moments(a: State, b: State) -> bool:
    first, second = (state.optimizer.state_dict()["state"] for state in (a, b))
    return all(same_tensors(first[key], second[key]) for key in second)


def test_a_checkpoint_leaves_the_rate_as_this_device_keeps_it(tmp_path: Path) -> None:
    """On CUDA it lies in a tensor, which a captured step reads: a plain number from a CPU's file would freeze it."""
    config = dataclasses.replace(CONFIG, optimizer="sgd")
    path = tmp_path / CHECKPOINT
    saved, fresh = start(config, CPU), start(config, CPU)
    Step(saved, config, CPU)(torch.tensor(IMAGES[:32]), torch.tensor(LABELS[:32]), 0.1)
    states.save(path, saved, "card")
    fresh.optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    states.load(path, fresh, "card")
    assert isinstance(fresh.optimizer.param_groups[0]["lr"], torch.Tensor)
    assert same_moments(fresh, saved)
