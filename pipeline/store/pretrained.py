"""The folder data/pretrained: trained networks that come with the project, in git, so small.

    NAME.safetensors   a run's weights; convolutions and the linear layer in float16
    NAME.json          written last: the run's card and result, the weights' sha256, and where they come from

`--run pretrained` means the only one there, `--run pretrained-NAME` that one.  Nothing here needs torch.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from pipeline.errors import BadData, MissingInput, PipelineError, UsageError
from pipeline.store import atomic, runs
from pipeline.store.fields import parse
from pipeline.store.manifest import FileRecord, Manifest, versions
from pipeline.store.runs import PRETRAINED, Run, RunCard, RunResult

MAX_BYTES = 10 * 2**20  # of a weights file: each clone of the repository carries it


def open_run(models: Path, folder: Path, name: str | None) -> Run:
    """A run by the name that `--run` gives: of `folder` (data/pretrained) if it says so, else a finished one.

    Raises:
        MissingInput: there is no such run.
        BadData: its files are damaged.
        UsageError: `pretrained` alone, and there are several.
    """
    if name is None or not runs.is_pretrained(name):
        return Run.open(models, name)
    card = _find(folder, name)
    weights = f"{card.stem}.safetensors"
    try:
        values = parse(card.read_bytes())
        manifest = Manifest("export", {weights: FileRecord(**values["weights"])})
        run_card, result = RunCard.from_dict(values["run"]), RunResult(**values["result"])
        origin = f"{values['trained_on']}, with `{values['command']}` at commit {values['commit'][:12]}"
    except (ValueError, TypeError, KeyError) as error:
        raise BadData(f"{card} is damaged or of another version ({error}): restore it with git") from error
    if manifest.missing(folder):
        raise BadData(f"{folder / weights} is missing or damaged: restore it with git")
    return Run(f"{PRETRAINED}-{card.stem}", folder, run_card, result, manifest, weights, origin)


def _find(folder: Path, name: str) -> Path:
    """The card that `name` means."""
    cards = {f"{PRETRAINED}-{path.stem}": path for path in sorted(folder.glob("[!.]*.json"))}
    if not cards:
        raise MissingInput(
            f"--run {name}: no network came with the project, {folder} has none; run `python -m pipeline.train`"
        )
    if name != PRETRAINED:
        if name not in cards:
            raise MissingInput(f"--run {name}: {folder} has none of that name; there is {', '.join(cards)}")
        return cards[name]
    if len(cards) > 1:
        raise UsageError(f"--run {name}: there are several, name one of {', '.join(cards)}")
    return next(iter(cards.values()))


def export(
    run: Run, folder: Path, name: str, *, trained_on: str, command: str, commit: str, agreement: Callable[[Path], float]
) -> Run:
    """Write `run` into `folder` as NAME.safetensors and NAME.json, each atomically, the card last.

    Args:
        trained_on: the images, for people: "CIFAR-10, 50,000 images".
        command: what trained it, at the git commit `commit`.
        agreement: measures, on the file of half-precision weights, per cent of labels equal to the run's own.

    Raises:
        UsageError: `name` is no plain name.
        BadData: the run's weights are damaged.
        PipelineError: the weights do not fit half precision, or the file is too large.
    """
    runs.check_name(name)
    run.check_weights()
    weights = folder / f"{name}.safetensors"
    metadata = {"model": json.dumps(dataclasses.asdict(run.card.config.model))}  # as pipeline.model.weights does
    content = to_bytes({key: _half(key, value) for key, value in load_file(run.weights).items()}, metadata)
    if len(content) > MAX_BYTES:
        raise PipelineError(f"{weights} would have {len(content):,} bytes, over the {MAX_BYTES:,} for files in git")
    atomic.write_bytes(weights, content)
    card = {
        "run": run.card.to_dict(),
        "result": run.result.to_dict(),
        "weights": dataclasses.asdict(FileRecord.of(weights)),
        "original": {"run": run.name, "weights_sha256": run.weights_sha256},
        "trained_on": trained_on,
        "command": command,
        "commit": commit,
        "label_agreement": agreement(weights),
        "versions": versions("torch", "numpy", "safetensors"),
    }
    atomic.write_json(folder / f"{name}.json", card)
    return open_run(folder, folder, f"{PRETRAINED}-{name}")


def _half(name: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Matrices and kernels in float16; the few vectors, statistics among them, keep their precision.

    Raises:
        PipelineError: a value is too large for float16.
    """
    if values.ndim < 2 or values.dtype != np.float32:
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise PipelineError(
            f"{name} holds values over 65504, the largest of half precision: this run cannot be exported"
        )
    return half
