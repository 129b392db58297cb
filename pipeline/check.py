"""Stage 6: local accuracy against Kaggle's score, predicted before it is known: the ledger, the gap, what it means.

    python -m pipeline.check

Predicts the public score of the newest CSV, or of --csv.  Joins submissions/ledger.csv with Kaggle's list, also for
what was submitted by hand, and tells what the newest score means.  `local` is the accuracy on CIFAR-10's labelled
test_batch; the gap is local minus public.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipeline import cli
from pipeline.config import Paths, competition
from pipeline.console import duration
from pipeline.errors import AccessDenied, BadData, Log, MissingInput, NetworkError, PipelineError, printable
from pipeline.gap.assessment import Assessment, assess, record
from pipeline.gap.comparison import Comparison, compare, sync
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import Kaggle
from pipeline.store import ledger, runs, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import Manifest
from pipeline.store.submissions import LocalCsv

POLL = 2.0  # seconds between two questions to Kaggle, while something is being scored
SHOWN = 30  # submissions in the table


@dataclass(frozen=True)
class Checked:
    """What is known, and what is predicted."""

    comparison: Comparison
    csv: LocalCsv | None  # the one that is assessed
    assessment: Assessment | None
    not_assessed: str | None  # why there is a CSV and no assessment
    not_asked: str | None  # why Kaggle was not asked
    pictures: Sequence[Path] = ()  # that were drawn

    def to_dict(self) -> dict[str, Any]:
        """For --json.  Accuracies in per cent, gaps in points."""
        values, found = self.comparison.to_dict(), self.assessment
        if self.comparison.newest is None and self.csv is not None:
            card = self.csv.sidecar
            values |= {"run": card.run, "local": card.test_accuracy, "validation": card.validation_accuracy}
        forecast = found.forecast if found else None
        return values | {
            "csv": str(self.csv.path) if self.csv else None,
            "predicted": _per_cent(forecast.predicted) if forecast else None,
            "interval": [_per_cent(limit) for limit in forecast.interval] if forecast else None,
            "by": forecast.by if forecast else None,
            "methods": {name: _per_cent(value) for name, value in forecast.methods.items()} if forecast else {},
            "refused": dict(forecast.refused) if forecast else {},
            "reliable": forecast.reliable if forecast else False,
            "doubts": list(forecast.doubts) if forecast else [],
            "temperature": round(found.temperature, 3) if found else None,
            "verdict": found.diagnosis.verdict if found else None,
            **(found.findings.to_dict() if found else {"diagnosis": None, "trials": [], "measure": None}),
            "advice": [asdict(advice) for advice in found.advice] if found else [],
            "pictures": [str(path) for path in self.pictures],
            "not_judged": self.not_assessed,
            "not_asked": self.not_asked,
        }


def _per_cent(fraction: float) -> float:
    """0.8343912 -> 83.439."""
    return round(100 * fraction, 3)


def check(
    slug: str, paths: Paths, kaggle: Kaggle, log: Log, *, csv: Path | None = None, wait: float = 0.0,
    pictures: Path | None = None,
) -> Checked:  # fmt: skip
    """Predict the score of `csv`, by default of the newest CSV, bring the ledger up to date and compare.

    The prediction is written into the ledger before Kaggle is asked for scores.  Without credentials only the
    ledger is looked at.  Submissions that are being scored just now are waited for, up to `wait` seconds.
    `pictures` is the folder for figures of the test set (pipeline.reporting.figures.test_set).

    Raises:
        NetworkError, AccessDenied: Kaggle was asked and did not answer; `log` has got what the ledger knows.
        MissingInput: pictures are wanted, and the data is not preprocessed here.
        BadData: the ledger is damaged; `csv` was not written by predict, was edited, or cannot be assessed; pictures
            are wanted, and the images here are others by now.
    """
    path, known = paths.submissions / ledger.NAME, competition(slug)
    entries, csvs = ledger.read(path), submissions.local_csvs(paths.submissions, slug)
    if csv is None:
        subject = _newest_csv(csvs, paths)
    else:
        at_hand = {each.path.resolve(): each for each in csvs}
        subject = at_hand.get(csv.resolve()) or submissions.local_csv(csv, slug)
    assessment = not_assessed = not_asked = None
    if subject is not None:
        try:
            assessment = assess(subject, csvs, entries, known)
            entries = record(path, entries, assessment, datetime.now(UTC))
        except BadData as error:
            if csv is not None:
                raise
            not_assessed = str(error)
    try:
        credentials.require(kaggle.environ)
    except AccessDenied as error:
        not_asked = str(error)
    else:
        try:
            _ask(kaggle, slug, path, entries, csvs, wait)
        except NetworkError:
            if states := ledger.current(entries, slug):
                log(submission_table(states, ledger.predictions(entries, slug)))
            raise
    drawn: Sequence[Path] = ()
    if pictures is not None and assessment is not None:
        from pipeline.reporting import figures  # noqa: PLC0415 - matplotlib takes a second to import

        whole = assessment.whole()
        data = figures.open_images(assessment.csv, whole, paths.processed / slug)
        drawn = figures.write(figures.test_set(whole, data), pictures, assessment.csv.path.stem)
    only = subject.sidecar.csv_sha256 if subject and csv else None
    compared = compare(known, entries, csvs, _facts(paths.processed / slug), only)
    return Checked(compared, subject, assessment, not_assessed, not_asked, drawn)


def _ask(kaggle: Kaggle, slug: str, path: Path, entries: list[Entry], csvs: Sequence[LocalCsv], wait: float) -> None:
    """Add to the ledger and to its `entries` what Kaggle says of all submissions, then of those being scored."""
    end = time.monotonic() + wait
    listed = kaggle.submissions(slug)
    entries[:] = sync(path, entries, listed, csvs, slug)
    if wait and any(submission.status == "PENDING" for submission in listed):
        kaggle.log(f"check: being scored, waiting for up to {duration(wait)}")
    while any(submission.status == "PENDING" for submission in listed) and time.monotonic() < end:
        kaggle.sleep(POLL)
        listed = kaggle.submissions(slug)
        entries[:] = sync(path, entries, listed, csvs, slug)


def _facts(processed: Path) -> Mapping[str, Any]:
    """What preprocess found out; nothing, if it has not run or its folder is damaged: the comparison goes on."""
    try:
        manifest = Manifest.read(processed)
    except BadData:
        return {}
    return manifest.facts if manifest else {}


def _newest_csv(csvs: Sequence[LocalCsv], paths: Paths) -> LocalCsv | None:
    """The newest CSV of the run that train finished last, alone or with others, else the newest of all.

    Those of models over the parameter limit do not count: they cannot be submitted.
    """
    try:
        latest = runs.latest(paths.models)
    except (MissingInput, BadData):
        latest = None
    return max(
        (csv for csv in csvs if csv.sidecar.submittable),
        key=lambda csv: (latest in (csv.sidecar.run, *csv.sidecar.runs), csv.sidecar.created),
        default=None,
    )


# --- the screen


def show(checked: Checked, log: Log) -> None:
    """Print the table, what it means, and what to expect."""
    compared = checked.comparison
    if checked.not_asked:
        log(f"check: Kaggle was not asked, this is the ledger alone ({checked.not_asked})")
    if compared.submissions:
        log(f"{submission_table(compared.submissions, compared.predictions)}\n")
        for line in _meaning(compared):
            log(f"check: {line}")
        if errors := compared.errors:
            mean = sum(map(abs, errors)) / len(errors)
            log(f"check: predictions that have a score by now: {len(errors)}, off by {mean:.2f} points on average")
    else:
        log(f"check: nothing has been submitted to {compared.competition.slug} yet")
    csv = checked.csv
    if csv is None:
        log("check: there is no CSV to submit; `python -m pipeline.predict` writes one")
        return
    summary = checked.assessment.summary() if checked.assessment else [f"no prediction: {checked.not_assessed}"]
    for line in [*summary, *(f"picture {path}" for path in checked.pictures)]:
        log(f"check: {line}")
    card = csv.sidecar
    if card.csv_sha256 not in {entry.csv_sha256 for entry in compared.submissions if entry.ref}:
        tag = submissions.tag(card.run, card.csv_sha256, card.validation_accuracy)
        log(f"check: {csv.path} has not been submitted.  To submit it:")
        log(f'  kaggle competitions submit -c {card.competition} -f {shlex.quote(str(csv.path))} -m "{tag}"')


def submission_table(entries: Sequence[Entry], predictions: Mapping[str, Entry]) -> str:
    """The newest SHOWN submissions, a line each."""
    older = max(len(entries) - SHOWN, 0)
    import pandas as pd  # noqa: PLC0415 - half a second that --help need not take

    shown = entries[older:]
    frame = pd.DataFrame(ledger.rows(shown, predictions), columns=list(ledger.HEAD))
    frame["status"] += ["*" * bool(entry.note) for entry in shown]
    notes = [f"* {entry.ref}: {printable(entry.note)}" for entry in shown if entry.note]
    left_out = [f"... and {older:,} older ones, in {ledger.NAME} and with --json"] if older else []
    return "\n".join([*left_out, frame.to_string(index=False), *notes])


def _meaning(compared: Comparison) -> list[str]:
    """What the newest score says, in lines."""
    newest, line = compared.newest, compared.competition.line
    if newest is None or newest.public is None:
        if newest is not None and newest.status == ledger.COMPLETE:
            return [f"ref {newest.ref} is complete and no score is shown for it"]
        return ["no score yet; look again later"]
    if newest.local_test is None or newest.gap_public is None:
        return [f"ref {newest.ref} scored {newest.public:.2f} %; its CSV is not from here"]
    lines = [
        f"ref {newest.ref}, run {printable(newest.run)}: local {newest.local_test:.2f} %, "
        f"public {newest.public:.2f} %, a gap of {newest.gap_public:.2f} points"
    ]
    if compared.optimistic:
        lines.append("that local accuracy is optimistic: the best epoch was selected on the same test_batch")
    if compared.noise is not None:
        assumed = "" if compared.competition.public_rows else ", assumed: half of them"
        verdict = "more than sampling noise explains" if compared.noise.exceeds else "within sampling noise"
        limit = compared.noise.limit
        lines.append(f"that is {verdict} (±{limit:.2f} points at 95 %; {compared.public_rows} public rows{assumed})")
    if compared.line_expects is not None and line is not None:
        lines.append(
            f"this competition's published line expects {compared.line_expects:.2f} % for that local accuracy; "
            f"the score is {newest.public - compared.line_expects:+.2f} points off it ({line.source})"
        )
    return lines


@cli.stage_command("""
python -m pipeline.check                             the default competition
python -m pipeline.check --csv submissions/sub.csv   that CSV
python -m pipeline.check --json                      for programs; accuracies in per cent
python -m pipeline.check --pictures submissions      and what is out of distribution or uncertain
python -m pipeline.check --fail-over 12              exit code 1 if the newest gap is over 12 points
""")
@cli.competition
@cli.csv("The CSV to assess, written by predict; by default the newest of the run that train finished last.")
@cli.as_json
@click.option("--fail-over", metavar="POINTS", type=cli.Finite(min=-100, max=100),
              help="End with exit code 1 if the newest gap is larger.")  # fmt: skip
@cli.wait(30, "a submission that is being scored")
@click.option("--pictures", metavar="FOLDER", type=cli.FOLDER,
              help="Draw the hidden images furthest out of distribution and of the lowest confidence there, and the "
              "distributions of the predictions.")  # fmt: skip
@cli.timeout
@cli.processed
@cli.models
@cli.submissions
def command(
    slug: str, csv: Path | None, as_json: bool, fail_over: float | None, wait: float, pictures: Path | None,
    timeout: float, processed: Path, models: Path, submissions: Path,
) -> None:  # fmt: skip
    """Predict the score of a CSV, compare local accuracy with Kaggle's scores, and keep the ledger."""
    paths = Paths(processed=processed, models=models, submissions=submissions)
    kaggle = Kaggle(os.environ, timeout, log=partial(click.echo, err=True))  # stdout may be JSON
    log: Log = (lambda _: None) if as_json else cli.log
    checked = check(slug, paths, kaggle, log, csv=csv, wait=wait, pictures=pictures)
    if as_json:
        cli.log(json.dumps(checked.to_dict(), indent=2))
    else:
        show(checked, cli.log)
    newest = checked.comparison.newest
    if fail_over is None or newest is None:
        return
    if newest.gap_public is None:
        raise PipelineError("--fail-over: no submission of a CSV from here has a score yet, so there is no gap")
    if newest.gap_public > fail_over:
        raise PipelineError(f"the gap of {newest.gap_public:.2f} points is over --fail-over {fail_over:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "check", argv)


if __name__ == "__main__":
    sys.exit(main())
