"""How long our pickle reader takes beside `pickle.load`, on generated files of the real sizes.

    python tests/bench/reading.py [--json] [--rounds N]

Both read the same files in turn, in one process; the medians are of `--rounds` rounds.  The headline `ratio`
is ours/theirs on the competition's own kind of file (protocol 4, 30.8 MB).
"""

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.rehearsal import digits  # found only after the line above
from pipeline.store.cifar import load as read

ROWS = 10_000
HEADLINE = "hidden, protocol 4"


def theirs(path: Path) -> object:
    """What a trusting program does.  The files are our own, so it is safe here."""
    with path.open("rb") as stream:
        return pickle.load(stream, encoding="bytes")


def hidden_file(protocol: int) -> bytes:
    """A competition's test file: `data` uint8 (10000, 32, 32, 3) and `ids` int64 (10000,)."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
    return pickle.dumps({b"data": images, b"ids": np.arange(ROWS)}, protocol=protocol)


def python_2_batch() -> bytes:
    """A data_batch as Python 2 wrote it: labels and file names as lists, `data` uint8 (10000, 3072)."""
    images = np.random.default_rng(1).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
    names = [f"frog_{n:06d}.png" for n in range(ROWS)]
    return digits.batch("data_batch_1", images, [n % 10 for n in range(ROWS)], names)


def seconds(function: Callable[[Path], object], path: Path) -> float:
    """The time of one call."""
    began = time.perf_counter()
    function(path)
    return time.perf_counter() - began


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Medians of interleaved rounds, in seconds, and ours/theirs."""
    taken = [(seconds(read, path), seconds(theirs, path)) for _ in range(rounds + 1)][1:]  # the first warms up
    ours, others = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"megabytes": path.stat().st_size / 1e6, "ours": ours, "theirs": others, "ratio": ours / others}


def run(rounds: int) -> dict[str, dict[str, float]]:
    """Measure each kind of file."""
    files: Mapping[str, Callable[[], bytes]] = {
        HEADLINE: lambda: hidden_file(4),
        "hidden, protocol 2": lambda: hidden_file(2),
        "data_batch, Python 2": python_2_batch,
    }
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pkl"
        for kind, make in files.items():
            path.write_bytes(make())
            results[kind] = measure(path, rounds)
    return results


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description="our pickle reader beside pickle.load")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--rounds", type=int, default=9, help="rounds a file (default: 9)")
    arguments = parser.parse_args()
    results = run(max(1, arguments.rounds))
    if arguments.json:
        print(json.dumps({"ratio": results[HEADLINE]["ratio"], "rounds": arguments.rounds, "files": results}))
        return
    print(f"{'file':22}{'MB':>8}{'ours ms':>10}{'pickle ms':>11}{'ratio':>8}")
    for kind, row in results.items():
        print(
            f"{kind:22}{row['megabytes']:8.1f}{row['ours'] * 1e3:10.1f}{row['theirs'] * 1e3:11.1f}{row['ratio']:8.2f}"
        )


if __name__ == "__main__":
    main()
