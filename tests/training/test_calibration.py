import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pipeline.errors import BadData
from pipeline.recipes import PRESETS
from pipeline.store.runs import EXECUTION
from pipeline.training import calibration
from pipeline.training.calibration import settle
from pipeline.training.device import Device

CONFIG = dataclasses.replace(PRESETS["rehearsal"], batch_size=4)
FP32 = Device(torch.device("cpu"), "fp32")
BF16 = Device(torch.device("cpu"), "bf16")


def timings(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Steps take `seconds` by precision, or compiled."""
    monkeypatch.setattr(
        calibration, "_time", lambda config, device: seconds["compiled" if device.compiled else device.precision]
    )


@pytest.mark.parametrize(("bf16", "chosen"), [(0.5, "bf16"), (2.0, "fp32")])
def test_the_faster_precision_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str
) -> None:
    timings(monkeypatch, fp32=1.0, bf16=bf16)
    said: list[str] = []
    assert settle(CONFIG, BF16, "no", tmp_path, 10, said.append).precision == chosen
    assert f"{1000 * bf16:.0f} ms a step in bf16, 1000 ms a step in fp32" in said[0]


def test_steps_are_really_run_in_each_precision() -> None:
    assert calibration._candidates(BF16) == ("bf16", "fp32")
    assert calibration._candidates(FP32) == ("fp32",)
    assert all(calibration._time(CONFIG, device) > 0 for device in (BF16, FP32))


def test_a_run_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timings(monkeypatch, fp32=1.0, bf16=0.5)
    first = settle(CONFIG, BF16, "yes", tmp_path, 10, print)
    timings(monkeypatch, fp32=1.0, bf16=2.0)
    assert settle(CONFIG, BF16, "auto", tmp_path, 10, print) == first == dataclasses.replace(BF16, compiled=True)
    # What is asked for counts more: a compiler may have turned out to be broken.
    assert not settle(CONFIG, BF16, "no", tmp_path, 10, print).compiled
    assert not settle(CONFIG, BF16, "auto", tmp_path, 10, print).compiled
    # A processor that would emulate bf16 takes what it is fast in.
    assert settle(CONFIG, FP32, "auto", tmp_path, 10, print) == FP32


def test_another_kind_of_device_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / EXECUTION).write_text(json.dumps({"device": "cuda", "precision": "bf16", "compiled": True}))
    timings(monkeypatch, fp32=1.0)
    assert settle(CONFIG, FP32, "auto", tmp_path, 10, print) == FP32


@pytest.mark.parametrize(
    ("steps", "tool", "speed", "compiled"),
    [(10, "g++", 0.5, False), (10_000, "g++", 0.5, True), (10_000, None, 0.5, False), (10_000, "g++", 0.99, False)],
)
def test_compiling_is_taken_where_it_is_faster_and_earns_its_time_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, tool: str | None, speed: float, compiled: bool
) -> None:
    timings(monkeypatch, fp32=1.0, compiled=speed)
    monkeypatch.setattr("shutil.which", lambda name: tool)
    assert settle(CONFIG, FP32, "auto", tmp_path, steps, lambda line: None).compiled == compiled


@pytest.mark.parametrize("content", ["", "[]", '{"device": "cpu"}'])
def test_a_damaged_record_is_bad_data(tmp_path: Path, content: str) -> None:
    (tmp_path / EXECUTION).write_text(content)
    with pytest.raises(BadData, match=r"execution\.json is damaged"):
        settle(CONFIG, FP32, "auto", tmp_path, 10, print)
