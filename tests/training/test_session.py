"""How a run computes stays in execution.json; tests/test_train.py has the rest of a session, by its command line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.recipes import PRESETS, Compile
from pipeline.store.runs import EXECUTION
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device
from pipeline.training.inference import EvaluationImages
from pipeline.training.loop import Task
from pipeline.training.session import _write_execution, settled

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
