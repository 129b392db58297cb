"""Does memory grow with the hidden set?  predict on 10,000 and on 1,000,000 generated images, each in its own process.

    python tests/bench/hidden_size.py [--sizes 10000 1000000] [--device cpu] [--json]

Makes preprocessed folders of random images and one run of preset `rehearsal`'s network with untrained weights, and
runs the real command.  Peak memory is the process's largest resident set, in MB (10**6 bytes); `ratio` is that of the
largest set to that of the smallest.  One million images take 3 GB of disk below --scratch while it runs.
"""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model import weights
from pipeline.model.resnet import build
from pipeline.recipes import PRESETS
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest, records
from pipeline.store.processed import Processed
from pipeline.store.runs import RunCard, RunResult
from tests.bench import side_by_side

CHUNK = 10_000  # images that are generated at once


def write_data(folder: Path, hidden: int) -> None:
    """A preprocessed folder whose hidden set has `hidden` images."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, rows in (("train", 100), ("test", 100)):
        np.save(folder / f"{name}_images.npy", generator.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8))
        np.save(folder / f"{name}_labels.npy", np.arange(rows) % 10)
    shape = (hidden, 32, 32, 3)
    images = np.lib.format.open_memmap(folder / "hidden_images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for first in range(0, hidden, CHUNK):
        count = min(CHUNK, hidden - first)
        images[first : first + count] = generator.integers(0, 256, (count, *shape[1:]), dtype=np.uint8)
    images.flush()
    del images
    np.save(folder / "hidden_ids.npy", np.arange(hidden))
    facts = {"class_names": [str(k) for k in range(10)]}
    Manifest("preprocess", records(folder, folder.glob("*.npy")), facts=facts).write(folder)


def write_run(folder: Path, slug: str, data: Processed) -> None:
    """A run of untrained weights for the competition `slug`."""
    config = PRESETS["rehearsal"]
    atomic.write_json(folder / runs.CONFIG, RunCard(slug, data.training_fingerprint, config).to_dict())
    weights.save(folder / runs.WEIGHTS, build(config.model, 0).state_dict(), config.model)
    result = RunResult("split", 0.0, 0.0, 10, 0.0, 100, 1, 1, 0.0, 78_330, 0.0, 0.0, "none", "fp32")
    atomic.write_json(folder / runs.RESULT, dataclasses.asdict(result))
    (folder / runs.METRICS).write_text("")
    files = [folder / name for name in (runs.CONFIG, runs.WEIGHTS, runs.RESULT, runs.METRICS)]
    Manifest("train", records(folder, files)).write(folder)


def predict(place: Path, run: str, device: str) -> dict[str, float]:
    """Peak memory in MB and seconds of the real command."""
    command = [sys.executable, "-m", "pipeline.predict", "--run", run, "--out", str(place / f"{run}.csv"),
               "--processed", str(place / "processed"), "--models", str(place / "models"),
               "--device", device]  # fmt: skip
    began = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(side_by_side.ROOT)},
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    assert child.stderr is not None
    said = child.stderr.read().decode()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(said)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss in bytes
    return {"peak_mb": used.ru_maxrss * unit / 1e6, "seconds": time.perf_counter() - began}


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], help="hidden images")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--scratch", type=Path, help="where the images are made (default: the system's)")
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for size in sorted(arguments.sizes):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            place, slug = Path(scratch), f"size-{size}"
            # In a process of its own: a child begins with its parent's peak, and that of writing is the file's size.
            writer = multiprocessing.get_context("spawn").Process(
                target=write_data, args=(place / "processed" / slug, size)
            )
            writer.start()
            writer.join()
            write_run(place / "models" / slug, slug, Processed.open(place / "processed" / slug))
            found[str(size)] = predict(place, slug, arguments.device)
    peaks = [row["peak_mb"] for row in found.values()]
    lines = [f"{'images':>10}{'peak MB':>10}{'seconds':>10}"]
    lines += [f"{int(size):10,}{row['peak_mb']:10.0f}{row['seconds']:10.1f}" for size, row in found.items()]
    result = {"ratio": peaks[-1] / peaks[0], "sizes": found}
    side_by_side.report(arguments.json, json.loads(json.dumps(result)), [*lines, f"memory ratio {result['ratio']:.2f}"])


if __name__ == "__main__":
    main()
