"""What exists of a competition in all folders, and what of it is stale.

Reads files and asks nobody; what is known of submissions is what the ledger has.  Changes no file, and returns damage
instead of raising it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import Paths, check_slug
from pipeline.console import megabytes
from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.store import atomic, ledger, runs
from pipeline.store.ledger import Entry
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.processed import training_fingerprint
from pipeline.store.runs import Run, RunCard
from pipeline.store.submissions import Sidecar

NOT_SUBMITTED = "not submitted"
Folder = dict[str, str]


@dataclass(frozen=True)
class RunState:
    """A run.  Accuracies in per cent; None is unknown."""

    name: str
    changed: str  # when a file of it changed last, ISO 8601, UTC
    state: str = "damaged"  # or training, interrupted, finished
    epoch: int = 0  # done
    epochs: int = 0
    validation: float | None = None  # the best so far
    test: float | None = None  # on test_batch
    seconds_left: float | None = None  # of training
    stale: bool = False  # it learned from other images than are here now
    latest: bool = False  # predict takes it by default
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps
    card: RunCard | None = None  # not in the JSON, as the next
    weights: str | None = None  # their sha256


@dataclass(frozen=True)
class CsvState:
    """A CSV.  Accuracies in per cent; None is unknown."""

    path: str
    created: str = ""  # ISO 8601, UTC
    runs: Sequence[str] = ()
    local: float | None = None  # on test_batch
    predicted: float | None = None  # the public score
    public: float | None = None
    submission: str = NOT_SUBMITTED  # or its state in the ledger, or "not known"
    stale: str = ""  # why it is no longer what its runs predict
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps


@dataclass(frozen=True)
class Overview:
    """The state of a competition here; runs and CSVs the newest first.

    A Folder has its path, its state (absent, under way, interrupted, complete, stale or damaged), and a text.
    """

    competition: str
    raw: Folder
    processed: Folder
    runs: Sequence[RunState]
    csvs: Sequence[CsvState]
    report: Folder | None  # None: there is no run to report on
    ledger: Mapping[str, Any]  # see _ledger
    latest_problem: str  # why it is unknown which run finished last, and what helps
    others: Sequence[str]  # other competitions of which something is here

    @property
    def empty(self) -> bool:
        """Whether there is nothing of it."""
        folders = self.raw["state"] == self.processed["state"] == "absent"
        return folders and not (self.runs or self.csvs or self.ledger["total"])

    @property
    def usable(self) -> RunState | None:
        """The run that predict should take: the latest if it can be used, else the newest that can."""
        fresh = [run for run in self.runs if run.state == "finished" and not run.stale]
        return next((run for run in fresh if run.latest), fresh[0] if fresh else None)


def read(slug: str, paths: Paths, now: datetime) -> Overview:
    """The state of the competition `slug`; `now` is in UTC."""
    raw, downloaded = _raw(paths.raw / slug)
    processed, arrays = _processed(paths.processed / slug, downloaded)
    data, hidden = (training_fingerprint(arrays), arrays.fingerprint("hidden_")) if arrays else (None, None)
    folders = {path.parent for name in (runs.CONFIG, MANIFEST) for path in paths.models.glob(f"[!.]*/{name}")}
    everything = sorted((_run(f, data) for f in folders), key=lambda run: (run.changed, run.name), reverse=True)
    found = [run for run in everything if run.card is None or run.card.competition == slug]
    others = {run.card.competition for run in everything if run.card}
    for folder in (*paths.raw.glob("[!.]*/"), *paths.processed.glob("[!.]*/")):
        with suppress(UsageError):
            others.add(check_slug(folder.name))
    problem = ""
    try:
        latest = runs.latest(paths.models)
        found = [replace(run, latest=run.name == latest) for run in found]
    except (BadData, MissingInput) as error:
        problem = str(error) if any(run.state == "finished" for run in found) else ""
    submitted, lines = _ledger(paths.submissions / ledger.NAME, slug, now)
    weights = {run.name: run.weights for run in found}
    csvs = [_csv(path, slug, weights, hidden, lines) for path in paths.submissions.glob("[!.]*.csv")]
    made = sorted(filter(None, csvs), key=lambda csv: (csv.created, csv.path), reverse=True)
    known = Overview(slug, raw, processed, found, made, None, submitted, problem, sorted(others - {slug}))
    if run := known.usable:
        page = str(paths.models / run.name / runs.REPORT)
        state = runs.report_state(paths.models / run.name, paths.processed / slug, paths.submissions)
        known = replace(known, report={"path": page, "state": state, "text": page})
    return known


def _raw(path: Path) -> tuple[Folder, Manifest | None]:
    """data/raw/SLUG, and its manifest if it is complete."""
    folder, manifest = _folder(path, "the download")
    cache = path.with_name(f".{path.name}.download")
    if manifest is not None:
        size = sum(record.size for record in manifest.files.values())
        folder["text"] = f"{len(manifest.files)} files, {megabytes(size)}, from {manifest.inputs.get('source')}"
    elif folder["state"] == "absent" and path.is_dir():
        folder |= {"state": "complete", "text": "laid out by hand"}
    elif folder["state"] == "absent" and cache.is_dir():
        size = sum(file.stat().st_size for file in cache.iterdir() if file.is_file())
        folder |= {"state": "interrupted", "text": f"after {megabytes(size)}"}
    return folder, manifest


def _processed(path: Path, downloaded: Manifest | None) -> tuple[Folder, Manifest | None]:
    """data/processed/SLUG, and its manifest if it can be used."""
    folder, manifest = _folder(path, "preprocess")
    if manifest is None:
        return folder, None
    with suppress(KeyError, TypeError, ValueError):  # of a manifest that was edited
        counts = [f"{manifest.facts[name]['images']:,} {name}" for name in ("train", "test", "hidden")]
        folder["text"] = f"{', '.join(counts)} images"
    if downloaded is not None and manifest.inputs != {n: record.sha256 for n, record in downloaded.files.items()}:
        folder |= {"state": "stale", "text": f"{folder['text']}, made of another download"}
    return folder, manifest


def _folder(path: Path, stage: str) -> tuple[Folder, Manifest | None]:
    """What the stage has left in its folder, and the manifest if it is complete."""
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
    return {"path": str(path), "state": state, "text": text}, manifest if state == "complete" else None


def _run(folder: Path, data: str | None) -> RunState:
    """A run of any competition; `data` is the fingerprint of the arrays, if known."""
    files = [path for name in (runs.CONFIG, runs.METRICS, MANIFEST) if (path := folder / name).is_file()]
    newest = max((file.stat().st_mtime for file in files), default=0.0)
    run = RunState(folder.name, datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"))
    try:
        card, training = RunCard.read(folder), atomic.is_locked(folder)
        run = replace(run, card=card, epochs=card.config.epochs)
        if training or not (folder / MANIFEST).is_file():
            rows = runs.read_metrics(folder / runs.METRICS)
            best = runs.best_row(rows).validation_accuracy if rows else None
            left = runs.seconds_left(rows, run.epochs) if rows else None
            run = replace(run, epoch=len(rows), validation=best, seconds_left=left)
        else:
            opened = Run.open(folder.parent, folder.name)
            found, weights = opened.result, opened.weights_sha256
            run = replace(run, epoch=found.epochs, validation=found.validation_accuracy, test=found.test_accuracy)
            run = replace(run, submittable=found.submittable, weights=weights)
        state = "training" if training else "interrupted" if run.weights is None else "finished"
        return replace(run, state=state, stale=data not in (None, card.data))
    except (BadData, MissingInput) as error:
        return replace(run, problem=str(error))


def _csv(
    path: Path, slug: str, weights: Mapping[str, str | None], hidden: str | None, lines: Sequence[Entry] | None
) -> CsvState | None:
    """A CSV, or None if predict did not write it for the competition; what is None of the others is not known."""
    try:
        sidecar = Sidecar.read(path)
    except BadData as error:
        return CsvState(str(path), problem=str(error))
    if sidecar is None or sidecar.competition != slug:
        return None
    sent = [entry for entry in ledger.current(lines or (), slug) if entry.csv_sha256 == sidecar.csv_sha256]
    sent.sort(key=lambda entry: entry.ref is not None)  # one that Kaggle has says more than one that it refused
    prediction = ledger.predictions(lines or (), slug).get(sidecar.csv_sha256)
    return CsvState(
        str(path),
        sidecar.created,
        tuple(sidecar.runs or [sidecar.run]),
        sidecar.test_accuracy,
        prediction.predicted if prediction else None,
        next((entry.public for entry in reversed(sent) if entry.public is not None), None),
        sent[-1].status if sent else "not known" if lines is None else NOT_SUBMITTED,
        _stale(path, sidecar, weights, hidden),
        sidecar.submittable,
    )


def _stale(path: Path, sidecar: Sidecar, weights: Mapping[str, str | None], hidden: str | None) -> str:
    """Why the CSV is no longer what its runs predict; "" if it is."""
    if atomic.partial(path).exists():
        return "predict was interrupted"
    if FileRecord.of(path).sha256 != sidecar.csv_sha256:
        return "edited"
    if hidden not in (None, sidecar.hidden):
        return "of another test set"
    learned = sidecar.runs or {sidecar.run: sidecar.weights_sha256}
    changed = [name for name, sha256 in learned.items() if weights.get(name) not in (None, sha256)]
    return f"{changed[0]} was trained anew" if changed else ""


def _ledger(path: Path, slug: str, now: datetime) -> tuple[dict[str, Any], list[Entry] | None]:
    """What the ledger knows of submissions, and its lines; None if it is damaged: `problem` says how."""
    try:
        lines, problem = ledger.read(path), ""
    except BadData as error:
        lines, problem = None, str(error)
    states = ledger.current(lines or (), slug)
    sent = [entry for entry in states if entry.ref is not None]
    return {
        "path": str(path),
        "total": len(sent),
        "today": sum(entry.time[:10] == now.date().isoformat() for entry in sent),  # UTC
        "open": sum(entry.status in (ledger.SENDING, ledger.PENDING) for entry in states),  # being sent or scored
        "best_public": max((entry.public for entry in sent if entry.public is not None), default=None),  # per cent
        "problem": problem,
    }, lines
