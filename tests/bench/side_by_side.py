"""What the benchmarks share: interleaved rounds, medians, the machine, and the two ways of printing."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

Work = Callable[[], object]


def parser(text: str, rounds: int | None = None, device: bool = False) -> argparse.ArgumentParser:
    """The options that every benchmark has, --rounds with this default, and --device; `text` is its docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=text, formatter_class=raw, allow_abbrev=False)
    made.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds (default: {rounds})")
    if device:
        made.add_argument("--device", default="auto", help="auto, cuda or cpu")
    return made


def processed() -> Path:
    """The folder of the preprocessed real images, from $PIPELINE_PROCESSED."""
    if "PIPELINE_PROCESSED" not in os.environ:
        raise SystemExit("PIPELINE_PROCESSED is not set: name the folder of the preprocessed data")
    return Path(os.environ["PIPELINE_PROCESSED"])


def compare(ways: Mapping[str, Work], base: str, rounds: int, images: int) -> tuple[dict[str, Any], list[str]]:
    """How fast each way is, and how many times faster than `base`: medians of rounds, and of the rounds' own ratios.

    The ways are taken in turn, so that what else happens on the machine falls on all of them, and divides out.  A
    first round is not counted.  `images` is what each does in a round.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            finish()
            taken[name].append(time.perf_counter() - began)
    speeds = {name: images / statistics.median(seconds[1:]) for name, seconds in taken.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(taken[base][1:], seconds[1:], strict=True))
        for name, seconds in taken.items()
    }
    lines = [f"{'way':22}{'images/s':>10}{'ratio':>8}"]
    lines += [f"{name:22}{speeds[name]:10,.0f}{ratios[name]:8.2f}" for name in ways]
    return {"ratios": ratios, "images_per_second": speeds, "rounds": rounds}, lines


def finish() -> None:
    """Wait for the GPU, if there is one at work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(as_json: bool, result: dict[str, Any], lines: Sequence[str]) -> None:
    """Print one JSON object, or the lines under the machine's, with what was measured."""
    import torch

    from pipeline.training.device import machine

    here = {
        "machine": machine(), "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip
    if as_json:
        print(json.dumps({**result, "machine": here}))
        return
    print(", ".join(f"{key} {value}" for key, value in here.items() if value))
    print("\n".join(lines))
