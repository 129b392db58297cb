"""The runs of a competition: finished, being trained, interrupted, or damaged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import BadData, MissingInput
from pipeline.overview.data import in_use
from pipeline.store import runs
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.runs import Run, RunCard

State = Literal["training", "interrupted", "finished", "damaged"]


@dataclass(frozen=True)
class RunState:
    """A run.  Accuracies in per cent; None is what is not known."""

    name: str
    state: State
    changed: str  # when a file of it changed last, ISO 8601, UTC
    epoch: int = 0  # done
    epochs: int = 0
    validation: float | None = None  # the best so far
    test: float | None = None
    seconds_left: float | None = None  # of training
    stale: bool = False  # it learned from other images than are here now
    latest: bool = False  # predict takes it by default
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps
    card: RunCard | None = None

    @property
    def usable(self) -> bool:
        """Whether predict takes it."""
        return self.state == "finished" and not self.stale

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        values = asdict(self)
        del values["card"]
        return values


def read(models: Path, slug: str, data: str | None) -> tuple[list[RunState], set[str], str]:
    """The runs of the competition `slug`, the newest first, and the other competitions that have runs.

    Those whose competition cannot be read are among the first.  `data` is the fingerprint of the arrays, if known.
    The third is what is the matter with LATEST, if anything is.
    """
    latest, problem = _latest(models)
    found, others = [], set()
    for folder in {path.parent for name in (runs.CONFIG, MANIFEST) for path in models.glob(f"[!.]*/{name}")}:
        try:
            card = RunCard.read(folder)
        except (BadData, MissingInput) as error:
            found.append(RunState(folder.name, "damaged", _changed(folder), problem=str(error)))
            continue
        if card.competition == slug:
            found.append(_read(folder, card, stale=data not in (None, card.data), latest=folder.name == latest))
        else:
            others.add(card.competition)
    return sorted(found, key=lambda run: (run.changed, run.name), reverse=True), others, problem


def _read(folder: Path, card: RunCard, *, stale: bool, latest: bool) -> RunState:
    changed, training = _changed(folder), in_use(folder)
    try:
        if (folder / MANIFEST).is_file() and not training:
            run = Run.open(folder.parent, folder.name)
            result = run.result
            return RunState(
                folder.name, "finished", changed, result.epochs, card.config.epochs, result.validation_accuracy,
                result.test_accuracy, stale=stale, latest=latest, submittable=result.submittable, card=card,
            )  # fmt: skip
        rows = runs.read(folder / runs.METRICS)
    except (BadData, MissingInput) as error:
        return RunState(folder.name, "damaged", changed, latest=latest, problem=str(error), card=card)
    best = runs.best_row(rows).validation_accuracy if rows else None
    left = runs.seconds_left(rows, card.config.epochs) if rows else None
    return RunState(
        folder.name, "training" if training else "interrupted", changed, len(rows), card.config.epochs, best,
        seconds_left=left, stale=stale, latest=latest, card=card,
    )  # fmt: skip


def _latest(models: Path) -> tuple[str | None, str]:
    """The run that LATEST names, or what is the matter with it; nothing is, if no run has finished yet."""
    try:
        return runs.latest(models), ""
    except BadData as error:
        return None, str(error)
    except MissingInput as error:
        return None, str(error) if any(models.glob(f"[!.]*/{MANIFEST}")) else ""


def _changed(folder: Path) -> str:
    """When its newest file of these was written; epochs change metrics.jsonl."""
    files = [folder / name for name in (runs.CONFIG, runs.METRICS, MANIFEST)]
    newest = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    return datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")


def subject(found: Sequence[RunState]) -> RunState | None:
    """The run that predict should take: the latest if it can be used, else the newest that can."""
    usable = [run for run in found if run.usable]
    return next((run for run in usable if run.latest), usable[0] if usable else None)
