"""What the stages would have left in their folders, without training and without torch."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from pipeline.recipes import PRESETS
from pipeline.store import atomic, ledger, runs
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, Run, RunCard, RunResult, complete, default_name
from pipeline.store.submissions import Sidecar
from tests.support import SLUG

ROW = EpochRow(1, 1e-3, 2.0, 20.0, 1.9, 61.2, 100.0, 60.0)
TODAY = "2026-11-25T12:31:00+00:00"


def begin(
    place: Path, name: str | None = None, *, done: int = 3, weights: str = "w", trial: str = "", **recipe: Any
) -> Path:
    """A run that was begun, of which so many epochs are done; its folder."""
    data = Processed.open(place / "data/processed" / SLUG)
    config = dataclasses.replace(PRESETS["rehearsal"], **recipe)
    card = RunCard(SLUG, data.training_fingerprint, config, trial)
    folder = place / "data/models" / (name or default_name(card))
    atomic.write_json(folder / runs.CONFIG, card.to_dict())
    rows = [dataclasses.replace(ROW, epoch=k, validation_accuracy=60.0 + k) for k in range(1, done + 1)]
    runs.write_metrics(folder / runs.METRICS, rows)
    (folder / runs.WEIGHTS).write_text(weights)
    return folder


def finish(
    place: Path, name: str | None = None, *, parameters: int = 1000, validation: float = 91.0, trial: str = "",
    **options: Any,
) -> Path:  # fmt: skip
    """A finished run, made the latest if it is no trial; its folder."""
    folder = begin(place, name, done=12, trial=trial, **options)
    result = RunResult("split", validation, 0.3, 10, 90.0, 20, 3, 12, 90.5, parameters, 100.0, 60.0, "cpu", "fp32")
    atomic.write_json(folder / runs.RESULT, dataclasses.asdict(result))
    complete(folder, RunCard.read(folder))
    if not trial:
        runs.point_latest(folder.parent, folder.name)
    return folder


def report(folder: Path) -> Path:
    """A run's report; its page."""
    page = folder / "report/index.html"
    page.parent.mkdir()
    page.write_text("<html></html>")
    return page


def answer(place: Path, *names: str, csv: str | None = None) -> Path:
    """A CSV of these runs as predict would have left it; its path."""
    data = Processed.open(place / "data/processed" / SLUG)
    used = [Run.open(place / "data/models", name) for name in names]
    path = place / "submissions" / (csv or f"{names[0]}.csv")
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"ID,Labels\n{path.name}\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Sidecar(
        SLUG, "+".join(names), digest, 1, used[0].weights_sha256, data.hidden_fingerprint, 91.0, "split", 90.0, TODAY,
        {}, {run.name: run.weights_sha256 for run in used}, submittable=all(run.result.submittable for run in used),
    ).write(path)  # fmt: skip
    return path


def note(csv: Path, status: str, ref: int | None = 1, public: float | None = None, time: str = TODAY) -> None:
    """A line in the ledger about a CSV."""
    known = Sidecar.read(csv)
    assert known is not None
    entry = dataclasses.replace(Entry.of(known), time=time, ref=ref, public=public, status=status)
    if status == ledger.PREDICTED:
        entry = dataclasses.replace(entry, ref=None, predicted=82.5, predicted_low=80.0, predicted_high=85.0)
    ledger.append(csv.parent / ledger.NAME, [entry])
