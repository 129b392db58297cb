"""Everything that is known of a competition here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Paths, check_slug
from pipeline.errors import BadData, UsageError
from pipeline.overview import csvs, data, runs
from pipeline.overview.csvs import CsvState
from pipeline.overview.data import Folder
from pipeline.overview.runs import RunState
from pipeline.store import ledger, submissions
from pipeline.store.ledger import Entry
from pipeline.store.processed import training_fingerprint
from pipeline.store.runs import METRICS, REPORT, RESULT


@dataclass(frozen=True)
class Report:
    """The page of a run."""

    path: str
    state: Literal["absent", "stale", "complete"]


@dataclass(frozen=True)
class Ledger:
    """What is known of submissions, without asking Kaggle."""

    path: str
    total: int = 0
    today: int = 0  # UTC
    open: int = 0  # being sent or scored
    best_public: float | None = None  # per cent
    problem: str = ""  # what is damaged, and what helps


@dataclass(frozen=True)
class Overview:
    """A competition's state here."""

    competition: str
    raw: Folder
    processed: Folder
    runs: Sequence[RunState]
    csvs: Sequence[CsvState]
    report: Report | None  # None: there is no run that it could be of
    ledger: Ledger
    others: Sequence[str]  # competitions that something is here of, too
    latest_problem: str = ""  # why it is not known which run finished last, and what helps

    @property
    def empty(self) -> bool:
        """Whether there is nothing of it."""
        absent = self.raw.state == self.processed.state == "absent"
        return absent and not (self.runs or self.csvs or self.ledger.total)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "competition": self.competition,
            "raw": self.raw.to_dict(),
            "processed": self.processed.to_dict(),
            "runs": [run.to_dict() for run in self.runs],
            "csvs": [csv.to_dict() for csv in self.csvs],
            "report": asdict(self.report) if self.report else None,
            "ledger": asdict(self.ledger),
            "latest_problem": self.latest_problem,
            "others": list(self.others),
        }


def read(slug: str, paths: Paths, now: datetime) -> Overview:
    """The state of the competition `slug`; `now` is in UTC."""
    raw = data.download(paths.raw / slug)
    processed = data.arrays(paths.processed / slug, raw)
    manifest = processed.manifest
    found, others, latest = runs.read(paths.models, slug, training_fingerprint(manifest) if manifest else None)
    book = paths.submissions / ledger.NAME
    try:
        lines, problem = ledger.read(book), ""
    except BadData as error:
        lines, problem = [], str(error)
    hidden = manifest.fingerprint("hidden_") if manifest else None
    known = csvs.read(paths.submissions, paths.models, slug, hidden, None if problem else lines)
    for folder in (paths.raw, paths.processed):
        others |= {path.name for path in folder.glob("[!.]*") if path.is_dir() and _is_slug(path.name)}
    return Overview(
        slug, raw, processed, found, known, _report(paths, found, known), _ledger(book, slug, lines, problem, now),
        sorted(others - {slug}), latest,
    )  # fmt: skip


def _is_slug(name: str) -> bool:
    try:
        return bool(check_slug(name))
    except UsageError:
        return False


def _ledger(book: Path, slug: str, lines: Sequence[Entry], problem: str, now: datetime) -> Ledger:
    states = ledger.current(lines, slug)
    sent = [entry for entry in states if entry.ref is not None]
    return Ledger(
        str(book),
        total=len(sent),
        today=sum(entry.time[:10] == now.date().isoformat() for entry in sent),
        open=sum(entry.status in (ledger.SENDING, ledger.PENDING) for entry in states),
        best_public=max((entry.public for entry in sent if entry.public is not None), default=None),
        problem=problem,
    )


def _report(paths: Paths, found: Sequence[RunState], known: Sequence[CsvState]) -> Report | None:
    """The page of the run that predict takes; it is stale if what it shows has changed since."""
    run = runs.subject(found)
    if run is None:
        return None
    folder = paths.models / run.name
    page = folder / REPORT
    shown = [folder / METRICS, folder / RESULT, paths.submissions / ledger.NAME]
    shown += [submissions.sidecar_path(Path(csv.path)) for csv in known if run.name in csv.runs]
    if not page.is_file():
        return Report(str(page), "absent")
    newest = max((path.stat().st_mtime for path in shown if path.is_file()), default=0.0)
    return Report(str(page), "stale" if newest > page.stat().st_mtime else "complete")
