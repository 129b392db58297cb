"""Data-parallel training: images a second of 1, 2, ... processes on one run, with the same global batch.

    python tests/bench/scaling.py [--processes 1 2] [--preset rehearsal] [--device cpu] [--json]

Each size runs `torchrun -m pipeline.train` for one epoch on generated images; the speed is the run's own
(result.json), without start and validation.  On a CPU each process has cores/processes threads, so that all use the
same cores.  `ratio` is the largest size's speed over one process's.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.store.manifest import Manifest, records
from pipeline.store.runs import RESULT
from tests.bench import side_by_side


def write_data(folder: Path, rows: int) -> None:
    """Random images: speed does not depend on what they show."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, count in (("train", rows), ("test", 500)):
        np.save(folder / f"{name}_images.npy", generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
        np.save(folder / f"{name}_labels.npy", np.arange(count) % 10)
    Manifest("preprocess", records(folder, folder.glob("*.npy")), facts={"class_names": []}).write(folder)


def train(place: Path, processes: int, arguments: object) -> float:
    """Images a second."""
    options = vars(arguments)
    threads = max((os.cpu_count() or 1) // processes, 1)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
               "-m", "--", "pipeline.train", "--preset", options["preset"], "--epochs", "1", "--competition", "random",
               "--processed", str(place / "processed"), "--models", str(place / "models"), "--compile", "no",
               "--device", options["device"], "--run", f"on-{processes}"]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": str(side_by_side.ROOT), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads((place / "models" / f"on-{processes}" / RESULT).read_bytes())
    return float(result["images_per_second"])


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="sizes (default: 1 2)")
    parser.add_argument("--preset", default="rehearsal", help="network and recipe (default: rehearsal)")
    parser.add_argument("--rows", type=int, default=12_800, help="training images (default: 12,800)")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    arguments = parser.parse_args()
    speeds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch) / "processed" / "random", arguments.rows)
        for processes in sorted(arguments.processes):
            speeds[str(processes)] = train(Path(scratch), processes, arguments)
    values = list(speeds.values())
    ratio = values[-1] / values[0]
    lines = [f"{'processes':>10}{'images/s':>10}", *(f"{n:>10}{speed:10.0f}" for n, speed in speeds.items())]
    result = {"ratio": ratio, "images_per_second": speeds, "preset": arguments.preset}
    side_by_side.report(arguments.json, result, [*lines, f"ratio {ratio:.2f}"])


if __name__ == "__main__":
    main()
