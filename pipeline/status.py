"""What exists, what of it is stale, and what to do next, on one screen.

    python -m pipeline.status

Reads files and asks nobody; what is known of submissions is what the ledger has.  Changes no file, and shows damage
instead of stopping at it.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from pipeline import cli, commands
from pipeline.config import Paths, check_slug
from pipeline.console import duration, megabytes, table
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.store import atomic, ledger, runs
from pipeline.store.ledger import Entry
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.processed import training_fingerprint
from pipeline.store.runs import Run, RunCard
from pipeline.store.submissions import Sidecar

NAME, RUNS, CSVS = 28, 5, 4  # on the screen: characters of a name, and how many are shown, the newest
NOT_SUBMITTED = "not submitted"


@dataclass(frozen=True)
class Folder:
    """What is in a stage's folder."""

    path: str
    state: Literal["absent", "under way", "interrupted", "complete", "stale", "damaged"]
    text: str = "nothing yet"


@dataclass(frozen=True)
class RunState:
    """A run.  Accuracies in per cent; None is unknown."""

    name: str
    state: Literal["training", "interrupted", "finished", "damaged"]
    changed: str  # when a file of it changed last, ISO 8601, UTC
    epoch: int = 0  # done
    epochs: int = 0
    validation: float | None = None  # the best so far
    test: float | None = None  # on test_batch
    seconds_left: float | None = None  # of training
    stale: bool = False  # it learned from other images than are here now
    latest: bool = False  # predict takes it by default
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps
    card: RunCard | None = None  # not in the JSON


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
class Submissions:
    """What the ledger knows."""

    path: str
    total: int = 0
    today: int = 0  # UTC
    open: int = 0  # being sent or scored
    best_public: float | None = None  # per cent
    problem: str = ""  # what is damaged, and what helps


@dataclass(frozen=True)
class Status:
    """The state of a competition here; runs and CSVs the newest first."""

    competition: str
    raw: Folder
    processed: Folder
    runs: Sequence[RunState]
    csvs: Sequence[CsvState]
    report: Mapping[str, str] | None  # its path and state; None: there is no run to report on
    ledger: Submissions
    latest_problem: str  # why it is unknown which run finished last, and what helps
    others: Sequence[str]  # other competitions of which something is here

    @property
    def empty(self) -> bool:
        """Whether there is nothing of it."""
        return self.raw.state == self.processed.state == "absent" and not (self.runs or self.csvs or self.ledger.total)

    @property
    def run(self) -> RunState | None:
        """The run that predict should take: the latest if it can be used, else the newest that can."""
        return _usable(self.runs)


def status(slug: str, paths: Paths, now: datetime) -> Status:
    """The state of the competition `slug`; `now` is in UTC."""
    raw, downloaded = _raw(paths.raw / slug)
    processed, arrays = _processed(paths.processed / slug, downloaded)
    found, others = _runs(paths.models, slug, training_fingerprint(arrays) if arrays else None)
    latest, latest_problem = _latest(paths.models)
    found = [replace(run, latest=run.name == latest) for run in found]
    submitted, lines = _ledger(paths.submissions / ledger.NAME, slug, now)
    hidden = arrays.fingerprint("hidden_") if arrays else None
    csvs = [_csv(path, slug, paths.models, hidden, lines) for path in paths.submissions.glob("[!.]*.csv")]
    for folder in (*paths.raw.glob("[!.]*/"), *paths.processed.glob("[!.]*/")):
        with suppress(UsageError):
            others.add(check_slug(folder.name))
    report = None
    if run := _usable(found):
        folder = paths.models / run.name
        report = {
            "path": str(folder / runs.REPORT),
            "state": runs.report_state(folder, paths.processed / slug, paths.submissions),
        }
    known_csvs = sorted(filter(None, csvs), key=lambda csv: (csv.created, csv.path), reverse=True)
    return Status(
        slug, raw, processed, found, known_csvs, report, submitted, latest_problem, sorted(others - {slug})
    )  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------


def _raw(path: Path) -> tuple[Folder, Manifest | None]:
    """data/raw/SLUG, and its manifest if it is complete."""
    folder, manifest = _folder(path, "the download")
    cache = path.with_name(f".{path.name}.download")
    if manifest is not None:
        size = sum(record.size for record in manifest.files.values())
        source = manifest.inputs.get("source", "an unknown place")
        return replace(folder, text=f"{len(manifest.files)} files, {megabytes(size)}, from {source}"), manifest
    if folder.state == "absent" and path.is_dir():
        return Folder(str(path), "complete", "laid out by hand"), None
    if folder.state == "absent" and cache.is_dir():
        size = sum(file.stat().st_size for file in cache.iterdir() if file.is_file())
        return Folder(str(path), "interrupted", f"after {megabytes(size)}"), None
    return folder, None


def _processed(path: Path, downloaded: Manifest | None) -> tuple[Folder, Manifest | None]:
    """data/processed/SLUG, and its manifest if it can be used."""
    folder, manifest = _folder(path, "preprocess")
    if manifest is None:
        return folder, None
    try:
        counts = [f"{manifest.facts[name]['images']:,} {name}" for name in ("train", "test", "hidden")]
        text = f"{', '.join(counts)} images"
    except (KeyError, TypeError, ValueError):  # it was edited
        text = "arrays"
    if downloaded is not None and manifest.inputs != {n: record.sha256 for n, record in downloaded.files.items()}:
        return Folder(str(path), "stale", f"{text}, made of another download"), manifest
    return replace(folder, text=text), manifest


def _folder(path: Path, stage: str) -> tuple[Folder, Manifest | None]:
    """What the stage has left in its folder, and the manifest if it is complete."""
    if atomic.is_locked(path):
        return Folder(str(path), "under way", f"{stage} is running"), None
    try:
        manifest = Manifest.read(path)
    except BadData as error:
        return Folder(str(path), "damaged", str(error)), None
    if manifest is None:
        return Folder(str(path), "absent"), None
    if missing := manifest.missing(path):
        return Folder(str(path), "damaged", f"{path / missing[0]} is missing or has another size"), None
    return Folder(str(path), "complete"), manifest


def _runs(models: Path, slug: str, data: str | None) -> tuple[list[RunState], set[str]]:
    """The runs of the competition, those whose competition cannot be read among them, and other runs' competitions.

    `data` is the fingerprint of the arrays, if known.
    """
    found, others = [], set()
    for folder in {path.parent for name in (runs.CONFIG, MANIFEST) for path in models.glob(f"[!.]*/{name}")}:
        files = [path for name in (runs.CONFIG, runs.METRICS, MANIFEST) if (path := folder / name).is_file()]
        newest = max((file.stat().st_mtime for file in files), default=0.0)
        changed, card = datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"), None
        try:
            card = RunCard.read(folder)
            if card.competition == slug:
                found.append(_run(folder, card, changed, stale=data not in (None, card.data)))
            else:
                others.add(card.competition)
        except (BadData, MissingInput) as error:
            found.append(RunState(folder.name, "damaged", changed, problem=str(error), card=card))
    return sorted(found, key=lambda run: (run.changed, run.name), reverse=True), others


def _run(folder: Path, card: RunCard, changed: str, *, stale: bool) -> RunState:
    training, epochs = atomic.is_locked(folder), card.config.epochs
    if (folder / MANIFEST).is_file() and not training:
        result = Run.open(folder.parent, folder.name).result
        return RunState(
            folder.name, "finished", changed, result.epochs, epochs, result.validation_accuracy, result.test_accuracy,
            stale=stale, submittable=result.submittable, card=card,
        )  # fmt: skip
    rows = runs.read(folder / runs.METRICS)
    best = runs.best_row(rows).validation_accuracy if rows else None
    left = runs.seconds_left(rows, epochs) if rows else None
    state: Literal["training", "interrupted"] = "training" if training else "interrupted"
    return RunState(folder.name, state, changed, len(rows), epochs, best, seconds_left=left, stale=stale, card=card)


def _latest(models: Path) -> tuple[str, str]:
    """The run that LATEST names; else "" and, unless no run has finished yet, what is wrong with LATEST."""
    try:
        return runs.latest(models), ""
    except BadData as error:
        return "", str(error)
    except MissingInput as error:
        return "", str(error) if any(models.glob(f"[!.]*/{MANIFEST}")) else ""


def _usable(found: Sequence[RunState]) -> RunState | None:
    """The run that predict should take: the latest if it can be used, else the newest that can."""
    usable = [run for run in found if run.state == "finished" and not run.stale]
    return next((run for run in usable if run.latest), usable[0] if usable else None)


def _csv(
    path: Path, slug: str, models: Path, hidden: str | None, lines: Sequence[Entry] | None
) -> CsvState | None:  # fmt: skip
    """The state of one CSV; None if predict did not write it for the competition."""
    try:
        sidecar = Sidecar.read(path)
    except BadData as error:
        return CsvState(str(path), problem=str(error))
    if sidecar is None or sidecar.competition != slug:
        return None
    sent = [entry for entry in ledger.current(lines or (), slug) if entry.csv_sha256 == sidecar.csv_sha256]
    prediction = ledger.predictions(lines or (), slug).get(sidecar.csv_sha256)
    return CsvState(
        str(path),
        sidecar.created,
        tuple(sidecar.runs or [sidecar.run]),
        sidecar.test_accuracy,
        prediction.predicted if prediction else None,
        next((entry.public for entry in reversed(sent) if entry.public is not None), None),
        sent[-1].status if sent else "not known" if lines is None else NOT_SUBMITTED,
        _stale(path, sidecar, models, hidden),
        sidecar.submittable,
    )


def _stale(path: Path, sidecar: Sidecar, models: Path, hidden: str | None) -> str:
    """Why the CSV is no longer what its runs predict; "" if it is."""
    if atomic.partial(path).exists():
        return "predict was interrupted"
    if FileRecord.of(path).sha256 != sidecar.csv_sha256:
        return "edited"
    if hidden not in (None, sidecar.hidden):
        return "of other hidden images"
    for name, sha256 in (sidecar.runs or {sidecar.run: sidecar.weights_sha256}).items():
        with suppress(BadData):  # a run that is gone, damaged or under way has no weights to compare
            manifest = Manifest.read(models / name)
            record = manifest.files.get(runs.WEIGHTS) if manifest else None
            if record is not None and record.sha256 != sha256:
                return f"{name} was trained anew"
    return ""


def _ledger(path: Path, slug: str, now: datetime) -> tuple[Submissions, list[Entry] | None]:
    """What the ledger knows, and its lines; None if it is damaged."""
    try:
        lines = ledger.read(path)
    except BadData as error:
        return Submissions(str(path), problem=str(error)), None
    states = ledger.current(lines, slug)
    sent = [entry for entry in states if entry.ref is not None]
    return Submissions(
        str(path),
        total=len(sent),
        today=sum(entry.time[:10] == now.date().isoformat() for entry in sent),
        open=sum(entry.status in (ledger.SENDING, ledger.PENDING) for entry in states),
        best_public=max((entry.public for entry in sent if entry.public is not None), default=None),
    ), lines


# --- what comes next: the first thing that is missing or stale, in the order of the stages ----------------


@dataclass(frozen=True)
class Step:
    """A stage to run with these options, and why; `wait`: after what is under way has ended."""

    stage: str
    why: str
    options: Sequence[str] = ()
    wait: bool = False


def following(known: Status, submissions: Path) -> Step:
    """The next step."""
    return _data_step(known) or _run_step(known, submissions) or _csv_step(known) or _last_step(known)


def _data_step(known: Status) -> Step | None:
    """Arrays that are complete need no download any more; a damaged folder is only redone with --force."""
    raw, processed = known.raw.state, known.processed.state
    if processed == "complete":
        return None
    if processed == "under way":
        return Step("train", "preprocess is under way", wait=True)
    if raw == "under way":
        return Step("preprocess", "the download is under way", wait=True)
    if raw == processed == "absent":
        return Step("download", "nothing is here yet" if known.empty else "the images are not here")
    stage, what, state = (
        ("preprocess", "arrays are", processed) if raw == "complete" else ("download", "download is", raw)
    )
    why = f"the {what} {'missing' if state == 'absent' else state}"
    return Step(stage, why, ["--force"] if state == "damaged" else [])


def _run_step(known: Status, submissions: Path) -> Step | None:
    """What is needed for a run that predict can take."""
    if known.run is not None:
        return None
    for run in known.runs:
        if run.state == "training":
            return Step("predict", f"run {run.name} is being trained", wait=True)
    fresh = [run for run in known.runs if run.card and not run.stale]  # interrupted or damaged: else it could be taken
    for run in sorted(fresh, key=lambda run: run.state == "damaged"):
        assert run.card is not None
        again = commands.of_run(run.card, run.name, submissions)
        if run.state == "interrupted":
            return Step("train", f"run {run.name} was interrupted, and goes on", again)
        return Step("train", f"run {run.name} is damaged", ["--force", *again])
    for run in known.runs:
        if run.stale and run.card is not None:  # on other images it is another run
            again = commands.of_run(run.card, runs.default_name(run.card), submissions)
            return Step("train", f"the images have changed since run {run.name} learned from them", again)
    # A run whose options cannot be read may be the one that the default options make.
    return Step("train", "no run is finished", ["--force"] if known.runs else [])


def _csv_step(known: Status) -> Step | None:
    """What is needed for that run's predictions to be submitted."""
    run = known.run
    if run is None or not run.submittable:
        return None
    own = [csv for csv in known.csvs if run.name in csv.runs]
    usable = [csv for csv in own if not csv.stale and not csv.problem]
    if not usable:
        # predict replaces what it wrote itself, but nothing that somebody edited.
        edited = any((csv.stale == "edited" or csv.problem) and Path(csv.path).stem == run.name for csv in known.csvs)
        why = f"the predictions of run {run.name} are {'stale' if own else 'missing'}"
        return Step("predict", why, [*_named(run), *(["--force"] if edited else [])])
    submitted = any(csv.submission not in (NOT_SUBMITTED, ledger.SENDING, ledger.ERROR) for csv in usable)
    if known.ledger.problem or submitted or not usable[0].submittable:
        return None
    return Step("submit", f"the predictions of run {run.name} are not submitted", ["--csv", usable[0].path])


def _last_step(known: Status) -> Step:
    """When all is submitted."""
    if known.ledger.problem:
        return Step("check", "once the ledger is repaired, as said above", wait=True)
    if known.ledger.open:
        return Step("check", "a submission has no score yet")
    if known.run and known.report and (state := known.report["state"]) != "complete":
        return Step("report", f"the report is {'missing' if state == 'absent' else state}", _named(known.run))
    return Step("check", "all is done: what the score means, and what would raise it")


def _named(run: RunState) -> list[str]:
    """How to name the run, if it is not the one that a stage takes by default."""
    return [] if run.latest else ["--run", run.name]


# --- the screen -------------------------------------------------------------------------------------------


def show(known: Status) -> list[str]:
    """The lines of the screen, without what comes next."""
    parts = {
        "competition": [known.competition],
        "raw": [f"{known.raw.state}: {known.raw.text}"],
        "processed": [f"{known.processed.state}: {known.processed.text}"],
        "runs": _rows(("", "", "validation", "test", ""), [*map(_run_row, known.runs)], RUNS, left=(0, 1, 4)),
        "CSVs": _rows(("", "local", "predicted", "public", ""), [*map(_csv_row, known.csvs)], CSVS, left=(0, 4)),
        "LATEST": [f"damaged: {known.latest_problem}"] if known.latest_problem else [],
        "report": [f"{known.report['state']}: {known.report['path']}"] if known.report else [],
        "ledger": [_ledger_text(known.ledger)],
        "also here": [", ".join(known.others)] if known.others else [],
    }
    return [
        f"{name if k == 0 else '':<11} {printable(text, 10 * len(text))}"
        for name, texts in parts.items()
        for k, text in enumerate(texts)
    ]


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], most: int, left: Sequence[int]) -> list[str]:
    older = [f"and {len(rows) - most:,} older"] if len(rows) > most else []
    return [*table(head, rows[:most], left=left), *older] if rows else ["none yet"]


def _run_row(run: RunState) -> Sequence[str]:
    notes = ["LATEST"] * run.latest + ["over the limit"] * (not run.submittable)
    if run.state == "training" and run.seconds_left is not None:
        notes.append(f"at {run.changed[11:16]} UTC, {duration(run.seconds_left)} to go")
    elif run.state == "interrupted":
        notes.append(f"{run.changed[:16].replace('T', ' ')} UTC")
    state = "stale" if run.stale else run.state
    progress = f" {run.epoch}/{run.epochs}" if run.state in ("training", "interrupted") else ""
    notes += [run.problem] if run.problem else []
    return printable(run.name, NAME), state + progress, _percent(run.validation), _percent(run.test), ", ".join(notes)


def _csv_row(csv: CsvState) -> Sequence[str]:
    notes = [f"stale: {csv.stale}" if csv.stale else f"damaged: {csv.problem}" if csv.problem else csv.submission]
    notes += ["over the limit"] * (not csv.submittable)
    scores = _percent(csv.local), _percent(csv.predicted), _percent(csv.public)
    return printable(Path(csv.path).name, NAME), *scores, ", ".join(notes)


def _ledger_text(known: Submissions) -> str:
    if known.problem:
        return f"damaged: {known.problem}"
    if not known.total:
        return "nothing submitted yet"
    best = "no score yet" if known.best_public is None else f"best public {known.best_public:.2f} %"
    plural = "" if known.total == 1 else "s"
    return f"{best}, {known.total:,} submission{plural}, {known.today:,} today (UTC); Kaggle was not asked"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


@cli.stage_command("""
python -m pipeline.status                                 the default competition
python -m pipeline.status --competition rehearsal-digits  another one
python -m pipeline.status --json                          for programs; accuracies in per cent
""")
@cli.competition
@cli.as_json
@cli.raw
@cli.processed
@cli.models
@cli.submissions
@click.pass_context
def command(
    context: click.Context, slug: str, as_json: bool, raw: Path, processed: Path, models: Path, submissions: Path
) -> None:
    """Show what exists, what of it is stale, and what to do next.

    If there is nothing of the default competition and something of one other, that one is shown.
    """
    paths, now = Paths(raw=raw, processed=processed, models=models, submissions=submissions), datetime.now(UTC)
    known, lines = status(slug, paths, now), []
    by_default = context.get_parameter_source("slug") == ParameterSource.DEFAULT
    if by_default and known.empty and len(known.others) == 1:
        known = status(known.others[0], paths, now)
        lines = [f"nothing is here of {slug}; this is the only other one", ""]
    step = following(known, paths.submissions)
    command = commands.command(step.stage, known.competition, paths, *step.options)
    if as_json:
        values = asdict(known) | {"next": command, "why": step.why, "wait": step.wait}
        for run in values["runs"]:
            del run["card"]
        cli.log(json.dumps(values, indent=2))
        return
    lines += [*show(known), "", f"{'then' if step.wait else 'next'}: {command}", f"      ({step.why})"]
    if known.empty:
        lines.append("      (or try it offline first: ./run_all.sh --rehearsal)")
    for line in lines:
        cli.log(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return cli.run(command, "status", argv)


if __name__ == "__main__":
    sys.exit(main())
