"""Put a finished run into data/pretrained, in half precision, with what that changes.

    python tests/bench/export_pretrained.py --run RUN --name NAME --trained-on "CIFAR-10, 50,000 images" \\
        --command "python -m pipeline.train --preset best"

Measures on how many of the holdout images the half-precision model says what the full one says, both in
float32 on the CPU unless --device names another.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.config import Paths  # found only after the line above
from pipeline.errors import PipelineError
from pipeline.model import resnet
from pipeline.store import atomic, ensemble, runs
from pipeline.store.ensemble import Exported
from pipeline.store.manifest import FileRecord, versions
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.training.device import choose
from pipeline.training.inference import EvaluationImages, labels_of

MAX_BYTES = 10 * 2**20  # of a weights file: each clone of the repository carries it


def export(
    run: Run, folder: Path, name: str, *, trained_on: str, command: str, commit: str, agreement: Callable[[Path], float]
) -> Run:
    """Write `run` into `folder` as NAME.safetensors and NAME.json, each atomically, the card last.

    Args:
        trained_on: the images in words: "CIFAR-10, 50,000 images".
        command: what trained it, at the git commit `commit`.
        agreement: measures, on the file of half-precision weights, per cent of labels equal to the run's own.

    Raises:
        UsageError: `name` is not a plain name.
        BadData: the run's weights are damaged.
        PipelineError: the weights do not fit half precision, or the file is too large.
    """
    runs.check_name(name)
    run.check_weights()
    weights = folder / f"{name}.safetensors"
    metadata = {"model": json.dumps(dataclasses.asdict(run.card.config.model))}  # as pipeline.model.resnet does
    content = to_bytes({key: _half(key, value) for key, value in load_file(run.weights).items()}, metadata)
    if len(content) > MAX_BYTES:
        raise PipelineError(f"{weights} would have {len(content):,} bytes, over the {MAX_BYTES:,} for files in git")
    atomic.write_bytes(weights, content)
    exported = Exported(
        run=run.card,
        result=run.result,
        weights=FileRecord.of(weights),
        original={"run": run.name, "weights_sha256": run.weights_sha256},
        trained_on=trained_on,
        command=command,
        commit=commit,
        label_agreement=agreement(weights),
        versions=versions("torch", "numpy", "safetensors"),
    )
    atomic.write_json(folder / f"{name}.json", dataclasses.asdict(exported))
    return ensemble.open_run(folder, folder, f"{runs.PRETRAINED}-{name}")


def _half(name: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Matrices and kernels in float16; the few vectors, statistics among them, keep their precision."""
    if values.ndim < 2 or values.dtype != np.float32:
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise PipelineError(f"{name} holds values over 65504, the largest of half precision: it cannot be exported")
    return half


def main() -> None:
    """Export, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--run", "--name", "--trained-on", "--command"):
        parser.add_argument(option, required=True)
    parser.add_argument("--commit", default="HEAD", help="the git commit at which it was trained (default: HEAD)")
    parser.add_argument("--device", default="cpu", help="where to measure (default: cpu)")
    arguments = parser.parse_args()
    run = Run.open(Paths.models, arguments.run)
    data = Processed.open(Paths.processed / run.card.competition)
    device = dataclasses.replace(choose(arguments.device), precision="fp32")
    images = EvaluationImages(data.array("test_images"), data.array("test_labels"), device.torch_device)
    config = run.card.config.model

    def agreement(halved: Path) -> float:
        full, half = (resnet.load(path, config).to(device.torch_device) for path in (run.weights, halved))
        alike = labels_of(full, images, device) == labels_of(half, images, device)
        return 100 * int(alike.sum()) / len(images)

    command = ["git", "rev-parse", arguments.commit]
    commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
    written = export(
        run, Paths.pretrained, arguments.name, trained_on=arguments.trained_on, command=arguments.command,
        commit=commit.strip(), agreement=agreement,
    )  # fmt: skip
    print(f"{written.weights}: {written.weights.stat().st_size / 1e6:.2f} MB")
    print(f"{agreement(written.weights):.3f}% of {len(images):,} images get the same label in full and half precision")


if __name__ == "__main__":
    main()
