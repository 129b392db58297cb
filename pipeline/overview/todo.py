"""What to do next: the first thing that is missing or stale, in the order of the stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.overview.csvs import NOT_SUBMITTED, CsvState
from pipeline.overview.data import Folder
from pipeline.overview.runs import RunState, subject
from pipeline.overview.whole import Overview
from pipeline.store import ledger

UNDER_WAY = "under way"


@dataclass(frozen=True)
class Step:
    """A stage to run, with options, and why."""

    stage: str
    why: str
    options: Sequence[str] = ()
    again: RunState | None = None  # of train: the run whose recipe to train, or to go on with
    wait: bool = False  # until what is under way has ended


def following(known: Overview) -> Step:
    """The next step."""
    return _data(known) or _run(known) or _csv(known) or _after(known)


def _data(known: Overview) -> Step | None:
    """What the images need; arrays that are complete need no download any more."""
    raw, processed = known.raw, known.processed
    if processed.state == "complete":
        return None
    if processed.state == UNDER_WAY:
        return Step("train", "preprocess is under way", wait=True)
    if raw.state == UNDER_WAY:
        return Step("preprocess", "the download is under way", wait=True)
    if raw.state == "absent" and processed.state == "absent":
        return Step("download", "nothing is here yet" if known.empty else "the images are not here")
    if raw.state != "complete":
        return Step("download", f"the download is {_adjective(raw)}", _force(raw))
    return Step("preprocess", f"the arrays are {_adjective(processed)}", _force(processed))


def _adjective(folder: Folder) -> str:
    return "missing" if folder.state == "absent" else folder.state


def _force(folder: Folder) -> Sequence[str]:
    """A stage looks at a damaged folder only if it is told to redo it."""
    return ["--force"] if folder.state == "damaged" else []


def _run(known: Overview) -> Step | None:
    """What is needed for a run that predict can take."""
    if subject(known.runs) is not None:
        return None
    for run in known.runs:
        if run.state == "training":
            return Step("predict", f"run {run.name} is being trained", wait=True)
    for run in known.runs:
        if run.state == "interrupted" and not run.stale:
            return Step("train", f"run {run.name} was interrupted, and goes on", again=run)
    damaged = next((run for run in known.runs if run.state == "damaged" and run.card and not run.stale), None)
    if damaged is not None:
        return Step("train", f"run {damaged.name} is damaged", ["--force"], again=damaged)
    stale = next((run for run in known.runs if run.stale), None)
    if stale is not None:
        return Step("train", f"the images have changed since run {stale.name} learned from them", again=stale)
    # Its options cannot be read, so it may be the very run that these make.
    unknown = any(run.card is None for run in known.runs)
    return Step("train", "no run is finished", ["--force"] if unknown else [])


def _csv(known: Overview) -> Step | None:
    """What is needed for the answers of that run."""
    run = subject(known.runs)
    if run is None or not run.submittable:
        return None
    own = [csv for csv in known.csvs if run.name in csv.runs]
    usable = [csv for csv in own if csv.usable]
    if not usable:
        why = f"the answers of run {run.name} are {'stale' if own else 'missing'}"
        # predict replaces what it wrote itself, but nothing that somebody edited.
        edited = any((csv.stale == "edited" or csv.problem) and Path(csv.path).stem == run.name for csv in known.csvs)
        return Step("predict", why, [*_of_run(known), *(["--force"] if edited else [])])
    if known.ledger.problem or _sent(usable) or not usable[0].submittable:
        return None
    return Step("submit", f"the answers of run {run.name} are not submitted", ["--csv", usable[0].path])


def _sent(csvs: Sequence[CsvState]) -> bool:
    return any(csv.submission not in (NOT_SUBMITTED, ledger.SENDING, ledger.ERROR) for csv in csvs)


def _after(known: Overview) -> Step:
    """When all answers are submitted."""
    if known.ledger.problem:
        return Step("check", "once the ledger is mended, as said above", wait=True)
    if known.ledger.open:
        return Step("check", "a submission has no score yet")
    if known.report is not None and known.report.state != "complete":
        return Step("report", f"the report is {'missing' if known.report.state == 'absent' else known.report.state}",
                    _of_run(known))  # fmt: skip
    return Step("check", "all is done: what the score means, and what would raise it")


def _of_run(known: Overview) -> Sequence[str]:
    """How to name the run, if it is not the one that a stage takes by default."""
    run = subject(known.runs)
    return [] if run is None or run.latest else ["--run", run.name]
