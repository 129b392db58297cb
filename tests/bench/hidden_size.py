"""Does memory grow with the test set?  The stages on 10,000 and on 1,000,000 generated images.

    python tests/bench/hidden_size.py [--sizes 10000 1000000] [--device cpu] [--train 50000] [--json]

Writes a download of random images with as many training images as CIFAR-10, and one run of preset `rehearsal`'s network
with untrained weights, and runs the real commands, each in its own process: preprocess, predict, the check of the CSV
(submit, at the mock Kaggle server) and check.  Peak memory is the largest resident set of the process or a child of
its, in MB (10**6 bytes); `ratio` is that of the largest test set to that of the smallest.  One million images take
6 GB of disk below --scratch while it runs.
"""

import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.console import table
from pipeline.store import cifar
from tests.bench import side_by_side
from tests.doubles import cpickle
from tests.doubles.kaggle import faulty_kaggle
from tests.support import SLUG, write_run

TEST_IMAGES = 10_000


def write_download(folder: Path, hidden: int, train: int) -> None:
    """A download of random images: `train` training images in five batches, a test_batch and `hidden` test images."""
    batches = folder / "cifar-10-python" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in (*cifar.TRAIN_BATCHES, cifar.TEST_BATCH):
        rows = TEST_IMAGES if name == cifar.TEST_BATCH else train // len(cifar.TRAIN_BATCHES)
        images = generator.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
        labels = [k % 10 for k in range(rows)]
        (batches / name).write_bytes(cpickle.batch(name, images, labels, [f"{k}.png" for k in range(rows)]))
    (batches / cifar.META).write_bytes(cpickle.batches_meta(train // 5, [str(k) for k in range(10)]))
    images = np.tile(generator.integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8), (hidden // 10_000, 1, 1, 1))
    with (folder / cifar.HIDDEN_NAMES[0]).open("wb") as stream:
        pickle.dump({b"data": images, b"ids": np.arange(hidden)}, stream, protocol=4)


# A process begins with the resident set of the one that starts it, so a small one does.
STARTER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measure(place: Path, stage: str, *options: str, environ: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Peak memory in MB and seconds of `python -m pipeline.STAGE`."""
    command = [sys.executable, "-S", "-c", STARTER, sys.executable, "-m", f"pipeline.{stage}", *options]
    environment = {**environ, "PYTHONPATH": str(side_by_side.ROOT)}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss in bytes
    return {"peak_mb": int(done.stdout) * unit / 1e6, "seconds": time.perf_counter() - began}


def stages(place: Path, hidden: int, train: int, device: str) -> dict[str, dict[str, float]]:
    """All measured commands, one after another, in the empty folder `place`."""
    # In a process of its own: a child begins with its parent's peak.
    writer = multiprocessing.get_context("spawn").Process(
        target=write_download, args=(place / "data/raw" / SLUG, hidden, train)
    )
    writer.start()
    writer.join()
    found = {"preprocess": measure(place, "preprocess", "--competition", SLUG)}
    run = write_run(place).name
    found["predict"] = measure(place, "predict", "--run", run, "--device", device)
    with faulty_kaggle(place / "data/raw" / SLUG, place / "state", slug=SLUG) as kaggle:
        csv = f"submissions/{run}.csv"
        found["submit"] = measure(place, "submit", "--csv", csv, "--wait", "0", environ=kaggle.environment)
        found["check"] = measure(place, "check", "--competition", SLUG, "--csv", csv, environ=kaggle.environment)
    return found


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, device=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], help="test images, 10,000s")
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    parser.add_argument("--scratch", type=Path, help="where the images are made (default: the system's)")
    arguments = parser.parse_args()
    found: dict[int, dict[str, dict[str, float]]] = {}
    for size in sorted(arguments.sizes):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            found[size] = stages(Path(scratch), size, arguments.train, arguments.device)
    smallest, largest = found[min(found)], found[max(found)]
    ratios = {stage: row["peak_mb"] / smallest[stage]["peak_mb"] for stage, row in largest.items()}
    rows = [
        [f"{size:,}", stage, f"{row['peak_mb']:.0f}", f"{row['seconds']:.1f}"]
        for size, of in found.items()
        for stage, row in of.items()
    ]
    lines = table(["images", "stage", "peak MB", "seconds"], rows)
    lines += [f"memory ratio of {stage:12}{ratio:6.2f}" for stage, ratio in ratios.items()]
    side_by_side.report(arguments.json, {"ratio": ratios, "stages": found}, lines)


if __name__ == "__main__":
    main()
