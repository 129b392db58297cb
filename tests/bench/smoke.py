"""Smoke test of a device: each way of training and predicting once, on the rehearsal's digits, in about a minute.

    python tests/bench/smoke.py [--device cuda] [--json]

A way fails if its command does, if it falls back (no fused optimizer, bf16, compiled model or CUDA graph), or if its
holdout accuracy is below 50%; prediction, if the CPU labels more than one in a hundred test images differently.
`ratio` is the share that works; the exit code is 1 if one fails.
"""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import mean
from threading import Timer
from time import perf_counter
from typing import Any

from torch._dynamo.utils import counters

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline import predict, train
from pipeline.config import Paths
from pipeline.console import table
from pipeline.preprocess import preprocess
from pipeline.rehearsal import digits
from pipeline.store.runs import Run
from tests.bench import side_by_side

WIDE = "--preset fast --batch-size 100 --flip none --epochs 3"  # the smallest model that computes in bf16
TRAININGS = {
    "float32, Adam": "--preset rehearsal",
    "bf16, Muon": f"{WIDE} --compile no",
    "compiled": f"{WIDE} --compile yes",
    "AdamW, CutMix, EMA": "--preset rehearsal --optimizer adamw --cutmix 1 --ema-decay 0.9",
    "SGD, Mixup, Cutout": "--preset rehearsal --optimizer sgd --learning-rate 0.1 --mixup 0.2 --cutout 8",
    "distillation, dropout": "--preset rehearsal --dropout 0.2 --teacher float32--Adam",
}
FALLS_BACK = "fails here"  # in the line that says so
LONG = "--preset rehearsal --epochs 100000 --run stopped"
STOPPED_AFTER = 5.0  # seconds
ALIKE, KNOWN = 99.0, 50.0  # per cent


class Failed(Exception):
    """A way does not work."""


def command(main: Callable[[list[str]], int], options: str, place: Path, code: int = 0) -> str:
    """What a stage prints that ends with this exit code."""
    folders = [f"--{name}={place / name}" for name in ("processed", "models")]
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        ended = main([*shlex.split(options), *folders, "--competition", digits.SLUG])
    if ended != code or FALLS_BACK in printed.getvalue():
        raise Failed(f"exit code {ended}: {printed.getvalue()}")
    return printed.getvalue()


def trains(name: str, options: str, device: str, place: Path) -> str:
    """Train a run; its accuracy and precision."""
    run_name = name.replace(", ", "--")
    command(train.main, f"{options} --device {device} --run {run_name}", place)
    run = Run.open(place / "models", run_name)
    if skipped := counters["inductor"].pop("cudagraph_skips", 0):
        raise Failed(f"{skipped} CUDA graphs were skipped")
    if (known := run.result.test_accuracy) < KNOWN:
        raise Failed(f"holdout {known:.2f}%")
    return f"holdout {known:.2f}%, {run.result.precision}"


def stops_and_resumes(device: str, place: Path) -> str:
    """Ctrl-C twice: the second run begins where the first one stopped."""
    for printed in ("stopped in epoch", "resuming after"):
        timer = Timer(STOPPED_AFTER, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            said = command(train.main, f"{LONG} --device {device}", place, code=130)
        finally:
            timer.cancel()
        if printed not in said:
            raise Failed(said)
    return next(line for line in said.splitlines() if printed in line)


def predicts(device: str, place: Path) -> str:
    """TTA and batch-norm adaptation: the same labels as on the CPU."""
    labels = []
    for on in (device, "cpu"):
        csv = place / f"{on}.csv"
        options = f"--run bf16--Muon --tta flip-shift --adapt bn --device {on} --submissions {place} --out {csv}"
        command(predict.main, options, place)
        labels.append([row.partition(",")[2] for row in csv.read_text().splitlines()[1:]])
    alike = 100 * sum(a == b for a, b in zip(*labels, strict=True)) / len(labels[0])
    if alike < ALIKE:
        raise Failed(f"{alike:.1f}% of the labels are as on the CPU")
    return f"{alike:.1f}% of the labels as on the CPU"


def attempt(work: Callable[[], str]) -> dict[str, Any]:
    """How a way went."""
    began = perf_counter()
    try:
        works, result = True, work()
    except Failed as error:
        works, result = False, str(error)
    return {"works": works, "seconds": perf_counter() - began, "result": result}


def main() -> None:
    """Try each way, and print how it went."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, mps or cpu (default: cuda)")
    arguments = parser.parse_args()
    ways: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        digits.write(place / "raw" / digits.SLUG, place / "labels.csv")
        with redirect_stdout(sys.stderr):
            preprocess(digits.SLUG, Paths(raw=place / "raw", processed=place / "processed"), lambda _line: None)
        works: dict[str, Callable[[], str]] = {
            **{name: partial(trains, name, options, arguments.device, place) for name, options in TRAININGS.items()},
            "stop and resume": partial(stops_and_resumes, arguments.device, place),
            "prediction": partial(predicts, arguments.device, place),
        }
        for name, work in works.items():
            ways[name] = attempt(work)
            print(f"{name}: {ways[name]['result']}", file=sys.stderr, flush=True)
    rows = [(name, "works" if way["works"] else "FAILS", f"{way['seconds']:.1f}") for name, way in ways.items()]
    result = {"ratio": mean(way["works"] for way in ways.values()), "ways": ways}
    side_by_side.report(arguments.json, result, table(("way", "", "seconds"), rows, left=(0, 1)))
    raise SystemExit(result["ratio"] < 1)


if __name__ == "__main__":
    main()
