"""How a run computes stays in execution.json; tests/test_train.py has the rest of a session, by its command line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline import train
from pipeline.errors import BadData
from pipeline.recipes import PRESETS, Compile
from pipeline.store.runs import EXECUTION, Run
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages
from pipeline.training.loop import Task
from pipeline.training.session import _write_execution, settled
from tests.training.tiny import SLUG, write_tiny

CONFIG = PRESETS["fast"]  # large enough for bf16
FP32 = Device("cpu", "fp32")
BF16 = Device("cpu", "bf16")
IMAGES, LABELS = np.zeros((4, 32, 32, 3), dtype=np.uint8), np.zeros(4, dtype=np.int64)


def task(folder: Path, device: Device) -> Task:
    training = TrainingImages(IMAGES, LABELS, dataclasses.replace(CONFIG, batch_size=2), device.torch_device)
    return Task(CONFIG, training, EvaluationImages(IMAGES, LABELS, device.torch_device), device, folder, "card")


def _settled(task: Task, compile_: Compile) -> Device:
    """As `run` settles it, and notes it."""
    chosen = settled(task.config, len(task.training), task.device, task.folder, compile_, task.world.alone)
    _write_execution(task, chosen)
    return chosen


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    first = _settled(task(tmp_path, BF16), "yes")
    assert first == dataclasses.replace(BF16, compiled=True)
    assert _settled(task(tmp_path, BF16), "auto") == first  # though the rule would not compile so short a run
    assert not settled(CONFIG, 4, BF16, tmp_path, "auto", alone=False).compiled  # resumed by several processes
    # What is asked for counts more: a compiler may have turned out to be broken.
    assert _settled(task(tmp_path, BF16), "no") == BF16
    assert _settled(task(tmp_path, BF16), "auto") == BF16
    # A processor that would emulate bf16 takes float32, and another one keeps that.
    assert _settled(task(tmp_path, FP32), "auto") == FP32
    assert _settled(task(tmp_path, BF16), "auto") == FP32


def test_on_another_kind_of_device_the_rule_decides_again(tmp_path: Path) -> None:
    (tmp_path / EXECUTION).write_text(json.dumps({"device": "cuda", "precision": "fp32", "compiled": True}))
    assert _settled(task(tmp_path, BF16), "auto") == BF16
    assert json.loads((tmp_path / EXECUTION).read_text())["device"] == "cpu"


@pytest.mark.parametrize("content", ["", "[]", '{"device": "cpu"}', '{"device": 1, "precision": "x", "compiled": 0}'])
def test_a_damaged_record_is_bad_data(tmp_path: Path, content: str) -> None:
    (tmp_path / EXECUTION).write_text(content)
    with pytest.raises(BadData, match=r"execution\.json is damaged"):
        _settled(task(tmp_path, FP32), "auto")


def test_a_compiler_that_fails_midway_costs_one_line_and_nothing_of_it_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compiler(model: nn.Module, **_options: object) -> Callable[[Tensor], Tensor]:
        def compiled(images: Tensor) -> Tensor:
            torch.autograd.backward(model(images).sum())  # moves statistics and gradients
            raise AssertionError("g++: internal compiler error\nsee above")

        return compiled

    write_tiny(tmp_path / "processed", train=100, test=20)
    folders = ["--processed", str(tmp_path / "processed"), "--models", str(tmp_path / "models")]
    recipe = ["--preset", "rehearsal", "--epochs", "1", "--device", "cpu", "--competition", SLUG, *folders]
    monkeypatch.setattr(torch, "compile", compiler)
    for compile_ in ("no", "yes"):
        assert train.main([*recipe, "--run", compile_, "--compile", compile_]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "internal compiler error" in line]
    assert lines == ["compiling the model fails here (g++: internal compiler error): training the plain model"]
    execution = json.loads((tmp_path / "models/yes" / EXECUTION).read_text())
    assert execution == {"device": "cpu", "precision": "fp32", "compiled": False}
    assert len({Run.open(tmp_path / "models", name).weights_sha256 for name in ("no", "yes")}) == 1
