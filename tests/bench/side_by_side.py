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


def parser(text: str, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has; `text` is its docstring."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    made.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds (default: {rounds})")
    return made


def training_parser(text: str) -> argparse.ArgumentParser:
    """The options of benchmarks that train whole runs on real images."""
    made = parser(text, rounds=1)
    made.add_argument("--competition", required=True, metavar="SLUG", help="a folder below $PIPELINE_PROCESSED")
    made.add_argument("--models", type=Path, default=Path("data/models"), help="where the runs go")
    made.add_argument("--device", default="auto", help="auto, cuda or cpu")
    return made


def processed() -> Path:
    """The folder of the preprocessed real images, from $PIPELINE_PROCESSED."""
    if "PIPELINE_PROCESSED" not in os.environ:
        raise SystemExit("PIPELINE_PROCESSED is not set: name the folder of the preprocessed data")
    return Path(os.environ["PIPELINE_PROCESSED"])


def interleaved(ways: Mapping[str, Work], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round, after `warm_up` rounds that are not counted.

    Taken in turn, so that what else happens on the machine falls on all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(warm_up + rounds):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            finish()
            if round_ >= warm_up:
                taken[name].append(time.perf_counter() - began)
    return taken


def finish() -> None:
    """Wait for the GPU, if there is one at work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of the rounds' own ratios: a slow phase of the machine divides out."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def machine() -> dict[str, Any]:
    """Where this was measured, and with what."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(), "threads": torch.get_num_threads(), "gpu": gpu,
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wide = [name for name in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if name in facts.get("flags", "").split()]
    return f"{facts.get('model name', '?')} ({wide[0] if wide else 'no avx2'})"


def report(as_json: bool, result: dict[str, Any], lines: Sequence[str]) -> None:
    """Print one JSON object, or the lines for people under the machine's."""
    here = machine()
    if as_json:
        print(json.dumps({**result, "machine": here}))
        return
    print(", ".join(f"{key} {value}" for key, value in here.items() if value))
    print("\n".join(lines))
