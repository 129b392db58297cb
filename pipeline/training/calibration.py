"""How a run computes: precision and compilation, measured on this very device with this very network.

What was found stays in execution.json, so that an interrupted run goes on as it began, to the same weights.
"""

import math
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import torch

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.errors import BadData, Log
from pipeline.recipes import Compile, TrainConfig
from pipeline.store import atomic
from pipeline.store.manifest import parse
from pipeline.store.runs import EXECUTION
from pipeline.training.device import Device, Precision
from pipeline.training.state import start
from pipeline.training.step import Step

ROUNDS = 3  # steps that are timed; the fastest counts

# Compiling is tried where a tenth of the training time, about what it can save, is more than it costs once.
COMPILING = {"cpu": 150.0, "cuda": 90.0}  # seconds; CPU: tests/bench/RESULTS.md, CUDA: estimated, unmeasured
WORTH = 0.1  # share of the training time
CLEARLY = 0.97  # a compiled step must take less than this share of an uncompiled one's time


def settle(config: TrainConfig, device: Device, compile_: Compile, folder: Path, steps: int, log: Log) -> Device:
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
    seconds = {precision: _time(config, replace(device, precision=precision)) for precision in _candidates(device)}
    precision = min(seconds, key=seconds.__getitem__)
    chosen = replace(device, precision=precision)
    if len(seconds) > 1:
        log(f"measured: {', '.join(f'{1000 * s:.0f} ms a step in {p}' for p, s in seconds.items())}")
    compiled = compile_ == "yes"
    if compile_ == "auto" and _may_pay(kind, seconds[precision] * steps):
        log("measuring whether compiling pays; this takes minutes")
        fast = _time(config, replace(chosen, compiled=True))
        compiled = fast < CLEARLY * seconds[precision]
        log(f"measured: {1000 * seconds[precision]:.0f} ms a step, {1000 * fast:.0f} ms compiled")
    return _settled(device, precision, compiled, folder)


def _settled(device: Device, precision: Precision, compiled: bool, folder: Path) -> Device:
    # Written only when it changes: of several processes the first has, when the others come here.
    if _begun(folder / EXECUTION, device.torch_device.type) != (precision, compiled):
        found = {"device": device.torch_device.type, "precision": precision, "compiled": compiled}
        atomic.write_json(folder / EXECUTION, found)
    return replace(device, precision=precision, compiled=compiled)


def _begun(path: Path, kind: str) -> tuple[Precision, bool] | None:
    if not path.is_file():
        return None
    try:
        values = parse(path.read_bytes())
        return (values["precision"], values["compiled"]) if values["device"] == kind else None
    except (ValueError, LookupError, TypeError) as error:
        raise BadData(f"{path} is damaged ({error}): remove it, or train the run again with --force") from error


def _candidates(device: Device) -> tuple[Precision, ...]:
    return ("bf16", "fp32") if device.precision == "bf16" else ("fp32",)


def _time(config: TrainConfig, device: Device) -> float:
    """Seconds of a step on the device as it is: with its precision, compiled or not."""
    on = device.torch_device
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(on)
    labels = torch.randint(CLASSES, shape[:1], generator=generator).to(on)
    state = start(config, device)
    state.network.train()
    step = Step(state, config, device)
    fastest = math.inf
    for _ in range(1 + ROUNDS):  # the first chooses algorithms, or compiles
        began = perf_counter()
        step(images, labels, config.learning_rate)
        _finish(on)
        fastest = min(fastest, perf_counter() - began)
    return fastest


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _may_pay(kind: str, seconds: float) -> bool:
    """Whether compiling is worth trying for a run that takes `seconds` uncompiled, and can be tried here."""
    if kind not in COMPILING or seconds * WORTH <= COMPILING[kind]:
        return False
    if kind == "cuda":
        return find_spec("triton") is not None
    return bool(shutil.which("g++") or shutil.which("clang++"))
