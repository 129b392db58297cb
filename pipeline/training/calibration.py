"""How a run computes: precision and compilation, measured on this very device with this very network.

What was found stays in execution.json, so that an interrupted run goes on as it began, to the same weights.
"""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.errors import BadData, Say
from pipeline.recipes import TrainConfig
from pipeline.store import atomic
from pipeline.training.device import Device, Precision
from pipeline.training.state import start
from pipeline.training.step import Step

Compile = Literal["auto", "yes", "no"]
EXECUTION = "execution.json"  # in the run's folder
ROUNDS = 3  # steps that are timed; the fastest counts

# A run is compiled if that saves more than it costs.  CPU: tests/bench/RESULTS.md; CUDA: estimated, unmeasured.
COMPILING = {"cpu": 150.0, "cuda": 90.0}  # seconds, once
SAVED = {"cpu": 0.1, "cuda": 0.2}  # share of the training time


def settle(config: TrainConfig, device: Device, compile_: Compile, folder: Path, steps: int, say: Say) -> Device:
    """The device with the precision and the compilation that pay for a run of `steps` steps.

    A run that was begun on the same kind of device goes on as it began, unless `compile_` says otherwise.

    Raises:
        BadData: execution.json is damaged.
    """
    kind = device.torch_device.type
    begun = _begun(folder / EXECUTION, kind)
    # bf16 that this processor would only emulate is left.
    if begun is not None and (begun[0] == "fp32" or device.precision == "bf16"):
        compiled = begun[1] if compile_ == "auto" else compile_ == "yes"
        return _settled(device, begun[0], compiled, folder)
    timed = dict(_time(config, device))
    precision = min(timed, key=timed.__getitem__)
    if len(timed) > 1:
        say(f"measured: {', '.join(f'{1000 * s:.0f} ms a step in {p}' for p, s in timed.items())}")
    compiled = _compiles(compile_, kind, timed[precision] * steps)
    return _settled(device, precision, compiled, folder)


def _settled(device: Device, precision: Precision, compiled: bool, folder: Path) -> Device:
    found = {"device": device.torch_device.type, "precision": precision, "compiled": compiled}
    atomic.write_json(folder / EXECUTION, found)
    return replace(device, precision=precision, compiled=compiled)


def _begun(path: Path, kind: str) -> tuple[Precision, bool] | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
        return (values["precision"], values["compiled"]) if values["device"] == kind else None
    except (ValueError, LookupError, TypeError) as error:
        raise BadData(f"{path} is damaged ({error}): remove it, or train the run again with --force") from error


def _time(config: TrainConfig, device: Device) -> Iterator[tuple[Precision, float]]:
    """Seconds a step in each precision that the device may be fast in."""
    candidates: tuple[Precision, ...] = ("bf16", "fp32") if device.precision == "bf16" else ("fp32",)
    on = device.torch_device
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(on)
    labels = torch.randint(CLASSES, shape[:1], generator=generator).to(on)
    for precision in candidates:
        plain = replace(device, precision=precision, compiled=False)
        step = Step(start(config, plain), config, plain)
        fastest = math.inf
        for _ in range(1 + ROUNDS):  # the first chooses algorithms
            began = perf_counter()
            step(images, labels, config.learning_rate)
            _finish(on)
            fastest = min(fastest, perf_counter() - began)
        yield precision, fastest


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _compiles(asked: Compile, kind: str, seconds: float) -> bool:
    """Whether a run that takes `seconds` uncompiled is compiled."""
    if asked != "auto":
        return asked == "yes"
    if kind not in SAVED or seconds * SAVED[kind] <= COMPILING[kind]:
        return False
    if kind == "cuda":
        return find_spec("triton") is not None
    return bool(shutil.which("g++") or shutil.which("clang++"))
