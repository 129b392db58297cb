"""What exists, what is stale, and what to do next, on one screen.

    python -m pipeline.status

Reads files only (pipeline.store.overview).
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pipeline import cli, commands, console
from pipeline.config import Paths
from pipeline.console import table
from pipeline.errors import BadData, MissingInput, printable
from pipeline.store import ledger, overview, runs
from pipeline.store.manifest import Manifest
from pipeline.store.overview import CsvState, FolderState, LedgerState, Overview, RunState
from pipeline.store.runs import RunCard
from pipeline.store.submissions import free

CSV_HEAD = ("file", "holdout", "predicted", "public", "rank here", "")
RUNS, CSVS = 10, 4  # on the screen, the newest


# --- the next step: the first thing that is missing or stale, in the order of the stages ------------------


@dataclass(frozen=True)
class NextStep:
    """A stage to run with these options, and why; `wait`: after the running one."""

    stage: str
    why: str
    options: Sequence[str] = ()
    wait: bool = False


def next_step(known: Overview, paths: Paths) -> NextStep:
    """The first step that is needed."""
    run = overview.usable(known.runs)
    return _data_step(known) or (_csv_step(known, run, paths) if run else _run_step(known, paths))


def _data_step(known: Overview) -> NextStep | None:
    """Complete arrays need no download; a damaged folder needs --force."""
    raw, processed = known.raw.state, known.processed.state
    if processed == "complete":
        return None
    if processed == "under way":
        return NextStep("train", "preprocess is under way", wait=True)
    if raw == "under way":
        return NextStep("preprocess", "the download is under way", wait=True)
    if raw == processed == "absent":
        return NextStep("download", "nothing is here yet" if known.empty else "the images are not here")
    stage, state = ("preprocess", processed) if raw == "complete" else ("download", raw)
    why = f"what {stage} makes is {'missing' if state == 'absent' else state}"
    if state != "damaged":
        return NextStep(stage, why)
    return NextStep(stage, why, ["--force", *(_source(known.raw) if stage == "download" else [])])


def _source(raw: FolderState) -> list[str]:
    """The option with which download repeats a damaged one; none if its manifest is damaged, too."""
    with suppress(BadData):
        manifest = Manifest.read(Path(raw.path))
        return manifest.source_option if manifest else []
    return []


def _run_step(known: Overview, paths: Paths) -> NextStep:
    """The step towards a run that predict can take, if no run but sweep trials is finished."""
    for run in known.runs:
        if run.state == "training" and not run.trial:
            return NextStep("predict", f"run {run.name} is being trained", wait=True)
    # Interrupted runs first, then damaged ones, then those of other images.
    own = [run for run in known.runs if not run.trial]
    for run in sorted(own, key=lambda run: (run.stale, run.state == "damaged")):
        try:
            card = RunCard.read(paths.models / run.name)
            name = runs.default_name(card) if run.stale else run.name  # on other images it is another run
            again = runs.options(card, name)
        except (BadData, MissingInput):
            continue
        if run.stale:
            return NextStep("train", f"the images have changed since run {run.name}", again)
        if run.state == "interrupted":
            return NextStep("train", f"run {run.name} was interrupted: resume it", again)
        return NextStep("train", f"run {run.name} is damaged", ["--force", *again])
    why = "no run is finished" + (" apart from a sweep's trials" if len(known.runs) > len(own) else "")
    # A run with unreadable options may be the one that the default options make.
    return NextStep("train", why, ["--force"] if own else [])


def _csv_step(known: Overview, run: RunState, paths: Paths) -> NextStep:
    """The step towards a submitted, scored and explained CSV of that run."""
    named = [] if run.latest else ["--run", run.name]
    csv = next((csv for csv in known.csvs if csv.default and not csv.stale), None)
    its_csv = ["--csv", csv.path] if csv and not run.latest else []
    if run.submittable and csv is None:
        place = paths.submissions / f"{run.name}.csv"
        elsewhere = ["--out", str(free(place))] if free(place) != place else []
        stale = any(run.name in csv.runs for csv in known.csvs)
        why = f"the predictions of run {run.name} are {'stale' if stale else 'missing'}"
        return NextStep("predict", why, [*named, *elsewhere])
    if known.ledger.problem:
        return NextStep("check", "once the ledger is repaired, as said above", wait=True)
    alike = csv.runs if csv else ()
    good = [each for each in known.csvs if each.runs == alike and not each.stale and not each.problem]
    submitted = any(csv.submission not in (overview.NOT_SUBMITTED, overview.REFUSED, ledger.SENDING) for csv in good)
    worse = csv.below_best if csv else ""
    if csv and run.submittable and csv.submittable and not (submitted or worse):
        return NextStep("submit", f"{csv.path} is not submitted yet", ["--csv", csv.path])
    if known.ledger.open:
        return NextStep("check", "a submission has no score yet", its_csv)
    if known.report and (state := known.report.state) != "complete":
        return NextStep("report", f"the report is {'missing' if state == 'absent' else state}", named)
    done = "submitted and scored" if any(csv.public is not None for csv in good) else "not scored"
    done = f"don't submit {csv.path}: {worse}" if csv and worse else done
    return NextStep("check", f"{done}; check explains the score and suggests improvements", its_csv)


# --- the screen -------------------------------------------------------------------------------------------


def show(known: Overview) -> list[str]:
    """The lines of the screen, without the next step."""
    # The latest run and the best one first; a sweep has very many trials.
    shown = sorted(known.runs, key=lambda run: (not (run.latest or run.best), run.trial))
    scores = sorted((csv.public for csv in known.csvs if csv.public is not None), reverse=True)
    parts = {
        "competition": [known.competition],
        "raw": [_folder_text(known.raw)],
        "processed": [_folder_text(known.processed)],
        "runs": _rows(overview.RUN_HEAD, [run.row for run in shown], RUNS, left=(0, 1, 6)),
        "CSVs": _rows(CSV_HEAD, [_csv_row(csv, scores) for csv in known.csvs], CSVS, left=(0, 5)),
        "LATEST": [f"damaged: {known.latest_problem}"] if known.latest_problem else [],
        "report": [_folder_text(known.report)] if known.report else [],
        "ledger": [_ledger_text(known.ledger)],
        "also here": [", ".join(known.others)] if known.others else [],
    }
    return [
        f"{name if k == 0 else '':<11} {printable(text, 10 * len(text))}"
        for name, texts in parts.items()
        for k, text in enumerate(texts)
    ]


def _folder_text(folder: FolderState) -> str:
    return f"{folder.state}: {folder.text}"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], most: int, left: Sequence[int]) -> list[str]:
    more = [f"and {len(rows) - most:,} more"] if len(rows) > most else []
    return [*table(head, rows[:most], left=left), *more] if rows else ["none yet"]


def _csv_row(csv: CsvState, scores: Sequence[float]) -> Sequence[str]:
    """`scores` are all public ones, the best first."""
    notes = [f"stale: {csv.stale}" if csv.stale else f"damaged: {csv.problem}" if csv.problem else csv.submission]
    notes += ["over the limit"] * (not csv.submittable)
    rank = "" if csv.public is None else f"{1 + scores.index(csv.public)}"
    figures = overview.percent(csv.local), overview.percent(csv.predicted), overview.percent(csv.public), rank
    return printable(Path(csv.path).name, overview.NAME), *figures, ", ".join(notes)


def _ledger_text(known: LedgerState) -> str:
    if known.problem:
        return f"damaged: {known.problem}"
    if not known.total:
        return "nothing submitted yet"
    best = "no score yet" if known.best_public is None else f"best public {known.best_public:.2f}%"
    plural = "" if known.total == 1 else "s"
    return f"{best}, {known.total:,} submission{plural}, {known.today:,} today (UTC); offline: Kaggle not contacted"


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
def command(slug: str, as_json: bool, paths: Paths) -> None:
    """Show what exists, what is stale, and what to do next."""
    known = overview.read(slug, paths, datetime.now(UTC))
    step = next_step(known, paths)
    command = commands.command(step.stage, known.competition, paths, *step.options)
    if as_json:
        console.show(json.dumps(asdict(known) | {"next": command, "why": step.why, "wait": step.wait}, indent=2))
        return
    lines = [*show(known), "", f"{'then' if step.wait else 'next'}: {command}", f"      ({step.why})"]
    if known.empty:
        lines.append("      (or try it offline first: ./run_all.sh --rehearsal)")
    console.show("\n".join(lines))


main = partial(cli.run, command, "status")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
