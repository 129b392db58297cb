"""The state, and the checkpoint on disk."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from pipeline.errors import BadData, PipelineError
from pipeline.store.runs import CHECKPOINT, EpochRow
from pipeline.training.state import load_checkpoint, save_checkpoint, start
from pipeline.training.step import TrainStep
from tests.training.test_step import CONFIG, CPU, IMAGES, LABELS, trained


def row(epoch: int, accuracy: float) -> EpochRow:
    return EpochRow(epoch, 1e-3, 2.0, 20.0, 1.9, accuracy, 100.0, 5.0)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("accuracies", [(30.0, 40.0, 35.0), (40.0, 30.0), (40.0, 40.0)])
def test_the_best_epochs_weights_are_kept(accuracies: tuple[float, ...]) -> None:
    state, seen = start(CONFIG, CPU), []
    for k, accuracy in enumerate(accuracies):
        with torch.no_grad():
            state.model.fc.bias.fill_(k)
        seen.append(k)
        state.finish_epoch(row(k + 1, accuracy))
    assert state.best_weights["fc.bias"].tolist() == [accuracies.index(max(accuracies))] * 10


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd", "ema_decay": 0.9}])
def test_a_checkpoint_brings_everything_back(tmp_path: Path, options: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **options)
    state, fresh = trained(config, steps=2), start(dataclasses.replace(config, seed=1), CPU)
    state.finish_epoch(row(1, 30.0))
    TrainStep(state, config, CPU, 2)(IMAGES, LABELS)
    save_checkpoint(tmp_path / CHECKPOINT, state, "card")
    load_checkpoint(tmp_path / CHECKPOINT, fresh, "card")
    assert (fresh.epoch, fresh.step, fresh.updates, fresh.rows) == (1, 1, 3, state.rows)
    assert same(fresh.model.state_dict(), state.model.state_dict())
    assert same(fresh.best_weights, state.best_weights)
    moments, kept = (s.optimizer.state_dict()["state"] for s in (fresh, state))
    assert kept and all(same(moments[key], kept[key]) for key in kept)
    assert torch.equal(fresh.loss_sum, state.loss_sum) and torch.equal(fresh.correct, state.correct)
    if state.ema is not None:
        assert fresh.ema is not None and same(fresh.ema.sums, state.ema.sums)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    state = start(CONFIG, CPU)
    with torch.no_grad():
        state.model.fc.bias[0] = float("nan")
    with pytest.raises(PipelineError, match="the weights are no longer finite"):
        save_checkpoint(tmp_path / CHECKPOINT, state, "card")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [slice(0, 5000), slice(7, None), slice(0, 0)], ids=["cut", "garbage", "empty"])
def test_a_damaged_checkpoint_is_bad_data(tmp_path: Path, left: slice) -> None:
    path = tmp_path / CHECKPOINT
    save_checkpoint(path, start(CONFIG, CPU), "card")
    path.write_bytes(path.read_bytes()[left])
    with pytest.raises(BadData, match=r"checkpoint\.pt is damaged .*--force"):
        load_checkpoint(path, start(CONFIG, CPU), "card")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: lost"), PermissionError("denied")],
)
def test_a_device_that_fails_meanwhile_damages_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save_checkpoint(tmp_path / CHECKPOINT, start(CONFIG, CPU), "card")
    monkeypatch.setattr(torch, "load", mock.Mock(side_effect=error))
    with pytest.raises(type(error), match=str(error)):
        load_checkpoint(tmp_path / CHECKPOINT, start(CONFIG, CPU), "card")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile(), tmp_path / CHECKPOINT)
    with pytest.raises(BadData, match=r"checkpoint\.pt is damaged"):
        load_checkpoint(tmp_path / CHECKPOINT, start(CONFIG, CPU), "card")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / CHECKPOINT, start(CONFIG, CPU), "card")
    with pytest.raises(BadData, match="is of another run or version"):
        load_checkpoint(tmp_path / CHECKPOINT, start(CONFIG, CPU), "other card")
