"""What exists of a competition, and what is stale: from files alone, submissions from the ledger.

Changes no file, and returns damage instead of raising it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.config import Paths, check_slug
from pipeline.console import duration, megabytes
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.store import atomic, ledger, runs
from pipeline.store.cifar import HIDDEN_NAMES, is_download
from pipeline.store.ledger import Entry
from pipeline.store.manifest import KAGGLE, Manifest, strangers
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.processed import Processed
from pipeline.store.runs import Run, RunCard
from pipeline.store.submissions import LocalCsv, Sidecar, default_csv, local_csvs

NOT_SUBMITTED, REFUSED = "not submitted", "refused"
RUN_HEAD = ("run", "preset", "epochs", "holdout", "public", "time", "")
NAME = 28  # characters of a name in a table


@dataclass(frozen=True)
class FolderState:
    """The folder of a stage, or the report."""

    path: str
    state: str  # absent, under way, interrupted, complete, stale or damaged
    text: str  # its content, or what is wrong with it


@dataclass(frozen=True)
class RunState:
    """A run.  Accuracies in per cent; None is unknown."""

    name: str
    changed: str  # last change of a file, ISO 8601, UTC
    preset: str = ""
    state: str = "damaged"  # or training, interrupted, finished
    epoch: int = 0  # done
    epochs: int = 0
    validation: float | None = None  # the best so far
    test: float | None = None  # on test_batch
    public: float | None = None  # best score of the CSVs that it predicted alone
    seconds: float | None = None  # of training, so far
    seconds_left: float | None = None  # of training
    stale: bool = False  # trained on other images than are here now
    latest: bool = False  # predict takes it by default
    best: bool = False  # highest validation accuracy of several usable runs
    trial: bool = False  # of a sweep
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps
    weights: str | None = None  # their sha256, of a finished run

    @property
    def row(self) -> Sequence[str]:
        """Its row in a table, under RUN_HEAD."""
        notes = ["stale"] * self.stale + [self.state] * (self.state != "finished") + ["latest"] * self.latest
        notes += ["best"] * self.best + ["a trial"] * self.trial + ["over the limit"] * (not self.submittable)
        notes += [self.problem] if self.problem else []
        if self.state == "training" and self.seconds_left is not None:
            notes.append(f"{duration(self.seconds_left)} left")
        if self.test is None and self.validation is not None:
            notes.append(f"validation {self.validation:.2f}% at {self.changed[:16].replace('T', ' ')} UTC")
        done = self.epoch == self.epochs
        epochs = "" if not self.epochs else str(self.epochs) if done else f"{self.epoch}/{self.epochs}"
        time = "" if self.seconds is None else duration(self.seconds)
        name, scores = printable(self.name, NAME), (percent(self.test), percent(self.public))
        return name, printable(self.preset, NAME), epochs, *scores, time, ", ".join(notes)


@dataclass(frozen=True)
class CsvState:
    """A CSV.  Accuracies in per cent; None is unknown."""

    path: str
    created: str = ""  # ISO 8601, UTC
    runs: Sequence[str] = ()
    local: float | None = None  # on test_batch
    predicted: float | None = None  # the public score
    below_best: str = ""  # why not to submit it
    public: float | None = None
    submission: str = NOT_SUBMITTED  # or its state in the ledger, REFUSED, or "not known"
    stale: str = ""  # why its runs would predict something else now
    default: bool = False  # submit, check and report take it by default
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps


@dataclass(frozen=True)
class LedgerState:
    """The submissions, by the ledger."""

    path: str
    total: int
    today: int  # UTC
    open: int  # being scored
    best_public: float | None  # per cent
    problem: str  # how it is damaged


@dataclass(frozen=True)
class Overview:
    """The state of a competition; runs and CSVs newest first."""

    competition: str
    raw: FolderState
    processed: FolderState
    runs: Sequence[RunState]
    csvs: Sequence[CsvState]
    report: FolderState | None  # None: no run
    ledger: LedgerState
    latest_problem: str  # why the latest run is unknown, and what helps
    others: Sequence[str]  # other competitions with data, runs or submissions

    @property
    def empty(self) -> bool:
        """Whether nothing exists."""
        folders = self.raw.state == self.processed.state == "absent"
        return folders and not (self.runs or self.csvs or self.ledger.total)


def percent(value: float | None) -> str:
    """An accuracy in a table; nothing if it is unknown."""
    return "" if value is None else f"{value:.2f}%"


def read(slug: str, paths: Paths, now: datetime) -> Overview:
    """The state of the competition `slug`; `now` is in UTC."""
    raw, downloaded = _raw(paths.raw / slug)
    processed, arrays = _processed(paths.processed / slug, downloaded)
    data, hidden = (arrays.training_fingerprint, arrays.hidden_fingerprint) if arrays else (None, None)
    ledger_state, lines = _ledger(paths.submissions / ledger.NAME, slug, now)
    ours = local_csvs(paths.submissions, slug)
    states, problem = run_states(paths.models, slug, data, ours, lines or ())
    weights, unchanged = {run.name: run.weights for run in states}, {csv.path for csv in ours}
    files = [path for path in paths.submissions.glob("[!.]*.csv") if path.is_file()]
    csvs = [_csv(path, slug, weights, path in unchanged, hidden, lines) for path in files]
    run = usable(states)
    mine = None
    with suppress(BadData, MissingInput):
        mine = str(default_csv(ours, paths, slug, "" if run.latest else run.name).path) if run else None
    return Overview(
        competition=slug,
        raw=raw,
        processed=processed,
        runs=states,
        csvs=[
            replace(csv, default=csv.path == mine)
            for csv in sorted(filter(None, csvs), key=lambda csv: (csv.created, csv.path), reverse=True)
        ],
        report=_report(paths.models / run.name, paths.processed / slug, paths.submissions) if run else None,
        ledger=ledger_state,
        latest_problem=problem if any(run.state == "finished" and not run.trial for run in states) else "",
        others=sorted(competitions(paths) - {slug}),
    )


def run_states(
    models: Path, slug: str, data: str | None, csvs: Sequence[LocalCsv], lines: Sequence[Entry]
) -> tuple[list[RunState], str]:
    """The runs of a competition, newest first; why the latest is unknown.

    Scores come from the runs' own `csvs` and the ledger's `lines`; `data` is the arrays' fingerprint, if known.
    """
    latest, problem, states = "", "", []
    try:
        *others, latest = runs.all_latest(models)
        if not all((models / name / MANIFEST).is_file() for name in others):  # predict could not average them
            latest = ""
    except (BadData, MissingInput) as error:
        problem = str(error)
    scored = {entry.csv_sha256: entry.public for entry in ledger.current(lines, slug) if entry.public is not None}
    for folder in {path.parent for name in (runs.CONFIG, MANIFEST) for path in models.glob(f"[!.]*/{name}")}:
        state, card = _run(folder, data, folder.name == latest)
        if (card is None and not runs.strangers(folder)) or (card and card.competition == slug):
            own = [csv.sidecar.csv_sha256 for csv in csvs if csv.sidecar.weights == {state.name: state.weights}]
            states.append(replace(state, public=max((scored[csv] for csv in own if csv in scored), default=None)))
    states.sort(key=lambda run: (run.changed, run.name), reverse=True)
    if len(fresh := _fresh(states)) > 1:
        best = max(fresh, key=lambda run: run.validation or 0)
        states = [replace(run, best=run is best) for run in states]
    return states, problem


def usable(states: Sequence[RunState]) -> RunState | None:
    """The run that predict should take: the latest if usable, else the newest usable one; no trial."""
    fresh = _fresh(states)
    return next((run for run in fresh if run.latest), fresh[0] if fresh else None)


def _fresh(states: Sequence[RunState]) -> list[RunState]:
    return [run for run in states if run.state == "finished" and not (run.stale or run.trial)]


def competitions(paths: Paths) -> set[str]:
    """The competitions with data, a run, or a line in the ledger."""
    names = {path.parent.name for root in (paths.raw, paths.processed) for path in root.glob(f"[!.]*/{MANIFEST}")}
    names |= {path.parent.name for name in HIDDEN_NAMES for path in paths.raw.glob(f"[!.]*/{name}")}
    names |= {path.stem[1:] for path in paths.raw.glob(".*.download")}
    names |= {card.competition for card in runs.cards(paths.models).values()}
    if not names:
        with suppress(BadData):
            names = {entry.competition for entry in ledger.read(paths.submissions / ledger.NAME)}
    found = set()
    for name in names:
        with suppress(UsageError):  # another folder, an edited line
            found.add(check_slug(name))
    return found


def _raw(path: Path) -> tuple[FolderState, Manifest | None]:
    """data/raw/SLUG, and its manifest if it is complete."""
    folder, manifest = _folder(path, "the download")
    cache = path.with_name(f".{path.name}.download")
    if manifest is not None:
        size = sum(record.size for record in manifest.files.values())
        source = manifest.inputs.get("source")
        origin = "" if source == KAGGLE else f", from {source}"  # that may have been the mock server
        folder = replace(folder, text=f"{len(manifest.files)} files, {megabytes(size)}{origin}")
    elif folder.state == "absent" and (strangers(path) or is_download(path.parent)):
        folder = replace(folder, state="complete", text="laid out by hand")
    elif folder.state == "absent" and cache.is_dir():
        size = sum(file.stat().st_size for file in cache.iterdir() if file.is_file())
        folder = replace(folder, state="interrupted", text=f"after {megabytes(size)}")
    return folder, manifest


def _processed(path: Path, downloaded: Manifest | None) -> tuple[FolderState, Processed | None]:
    """data/processed/SLUG, and its arrays if they can be used."""
    folder, manifest = _folder(path, "preprocess")
    if manifest is None:
        return folder, None
    with suppress(KeyError, TypeError, ValueError):  # an edited manifest
        train, test, hidden = (manifest.facts[name]["images"] for name in ("train", "test", "hidden"))
        folder = replace(folder, text=f"{train:,} training, {test:,} holdout, {hidden:,} test images")
    if downloaded is not None and manifest.inputs != {n: record.sha256 for n, record in downloaded.files.items()}:
        folder = replace(folder, state="stale", text=f"{folder.text}, made of another download")
    return folder, Processed(path, manifest)


def _folder(path: Path, stage: str) -> tuple[FolderState, Manifest | None]:
    """The state of a stage's folder, and the manifest if it is complete."""
    state, text, manifest = "absent", "nothing yet", None
    try:
        manifest = Manifest.read(path)
    except BadData as error:
        state, text = "damaged", str(error)
    if manifest is not None:
        state, text = "complete", f"{len(manifest.files)} files"
        if missing := manifest.missing(path):
            state, text = "damaged", f"{path / missing[0]} is missing or has another size"
    if atomic.is_locked(path):
        state, text = "under way", f"{stage} is running"
    return FolderState(str(path), state, text), manifest if state == "complete" else None


def _run(folder: Path, data: str | None, latest: bool) -> tuple[RunState, RunCard | None]:
    """A run of any competition, and its card if that can be read; `data` is the fingerprint of the arrays, if known."""
    files = [path for name in (runs.CONFIG, runs.METRICS, MANIFEST) if (path := folder / name).is_file()]
    newest = max((file.stat().st_mtime for file in files), default=0.0)
    changed = datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")
    state, card = RunState(folder.name, changed, latest=latest), None
    try:
        card, training = RunCard.read(folder), atomic.is_locked(folder)
        state = replace(state, preset=card.config.preset, epochs=card.config.epochs, trial=bool(card.trial))
        stale = data not in (None, card.data)
        if not training and (folder / MANIFEST).is_file():
            run = Run.open(folder.parent, folder.name)
            result = run.result
            state = replace(
                state, state="finished", epoch=result.epochs, validation=result.validation_accuracy, stale=stale,
                test=result.test_accuracy, seconds=result.seconds, submittable=result.submittable,
                weights=run.weights_sha256,
            )  # fmt: skip
            return state, card
        rows = runs.read_metrics(folder / runs.METRICS)
        state = replace(state, state="training" if training else "interrupted", epoch=len(rows), stale=stale)
        if rows:
            best, left = runs.best_row(rows).validation_accuracy, runs.seconds_left(rows, state.epochs)
            state = replace(state, validation=best, seconds=sum(row.seconds for row in rows), seconds_left=left)
    except (BadData, MissingInput, UsageError) as error:  # UsageError: "RUN copy" is not the name of a run
        state = replace(state, problem=str(error))
    return state, card


def _report(folder: Path, *shown: Path) -> FolderState:
    return FolderState(page := str(folder / runs.REPORT), report_state(folder, *shown), page)


def report_state(folder: Path, data: Path, submissions: Path) -> Literal["absent", "stale", "complete"]:
    """Whether the report in a run's folder is newer than what it shows: runs, the arrays in `data`, CSVs, ledger."""
    if not (page := folder / runs.REPORT).is_file():
        return "absent"
    shown = [*(folder / name for name in (runs.CONFIG, runs.METRICS, runs.RESULT, MANIFEST)), data / MANIFEST]
    shown += [*submissions.glob("*.json"), submissions / ledger.NAME, *folder.parent.glob(f"[!.]*/{MANIFEST}")]
    newest = max((path.stat().st_mtime for path in shown if path.is_file()), default=0.0)
    return "stale" if newest > page.stat().st_mtime else "complete"


def _csv(
    path: Path, slug: str, weights: Mapping[str, str | None], unchanged: bool, hidden: str | None,
    lines: Sequence[Entry] | None,
) -> CsvState | None:  # fmt: skip
    """A CSV, or None if predict did not write it for the competition; None arguments are unknown."""
    try:
        sidecar = Sidecar.read(path)
    except BadData as error:
        return CsvState(str(path), problem=str(error))
    if sidecar is None or sidecar.competition != slug:
        return None
    sent = [entry for entry in ledger.current(lines or (), slug) if entry.csv_sha256 == sidecar.csv_sha256]
    sent.sort(key=lambda entry: entry.ref is not None)  # accepted ones last
    prediction = ledger.predictions(lines or (), slug).get(sidecar.csv_sha256)
    return CsvState(
        path=str(path),
        created=sidecar.created,
        runs=tuple(sidecar.weights),
        local=sidecar.test_accuracy,
        predicted=prediction.predicted if prediction else None,
        below_best=ledger.below_best(lines or (), slug, sidecar.csv_sha256),
        public=next((entry.public for entry in reversed(sent) if entry.public is not None), None),
        submission=_submission(sent[-1]) if sent else "not known" if lines is None else NOT_SUBMITTED,
        stale=_stale(path, sidecar, weights, unchanged, hidden),
        submittable=sidecar.submittable,
    )


def _submission(entry: Entry) -> str:
    """An error without a ref is a refusal by Kaggle; with one, Kaggle could not score the CSV."""
    return REFUSED if entry.status == ledger.ERROR and entry.ref is None else entry.status


def _stale(path: Path, sidecar: Sidecar, weights: Mapping[str, str | None], unchanged: bool, hidden: str | None) -> str:
    """Why the CSV's runs would predict something else now; "" if they would not."""
    if atomic.partial(path).exists():
        return "predict was interrupted"
    if not unchanged:
        return "edited by hand"
    if hidden not in (None, sidecar.hidden):
        return "of another test set"
    changed = [name for name, sha256 in sidecar.weights.items() if weights.get(name) not in (None, sha256)]
    return f"{changed[0]} was trained again" if changed else ""


def _ledger(path: Path, slug: str, now: datetime) -> tuple[LedgerState, list[Entry] | None]:
    """The ledger's state, and its lines; None if it is damaged: `problem` says how."""
    try:
        lines, problem = ledger.read(path), ""
    except BadData as error:
        lines, problem = None, str(error)
    states = ledger.current(lines or (), slug)
    sent = [entry for entry in states if entry.ref is not None]
    state = LedgerState(
        path=str(path),
        total=len(sent),
        today=sum(entry.time[:10] == now.date().isoformat() for entry in sent),
        open=sum(entry.status == ledger.PENDING for entry in states),
        best_public=max((entry.public for entry in sent if entry.public is not None), default=None),
        problem=problem,
    )
    return state, lines
