"""Finished runs without networks: what tests of packages need of a run is its folder."""

import dataclasses
from pathlib import Path

from pipeline.recipes import PRESETS, TrainConfig
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest, records
from pipeline.store.runs import Run, RunCard, RunResult

RESULT = RunResult("split", 91.0, 0.3, 10, 90.0, 20, 3, 12, 90.5, 1000, 100.0, 60.0, "cpu", "fp32")


def write_made(
    models: Path, name: str, *teachers: str, labels: str = "", config: TrainConfig = PRESETS["rehearsal"],
    result: RunResult = RESULT, weights: str | None = None,
) -> Run:  # fmt: skip
    """A run in `models` that has learned from `teachers` (NAME@sha256) and the pseudo-labels `labels`."""
    folder = models / name
    card = RunCard("tiny", "data", dataclasses.replace(config, teachers=teachers, pseudo_labels=labels))
    atomic.write_json(folder / runs.CONFIG, card.to_dict())
    (folder / runs.WEIGHTS).write_text(name if weights is None else weights)
    atomic.write_json(folder / runs.RESULT, result.to_dict())
    files = [folder / n for n in (runs.CONFIG, runs.WEIGHTS, runs.RESULT)]
    Manifest("train", records(folder, files), versions={"python": "3.11.7", "torch": "2.9.0"}).write(folder)
    return Run.open(models, name)


def identity(run: Run) -> str:
    """As the card of a run says whom it learned from."""
    return f"{run.name}@{run.weights_sha256[:12]}"
