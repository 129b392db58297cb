"""Stage 6: local accuracy against Kaggle's score, predicted before it is known: the ledger, the gap, what it means.

    python -m pipeline.check

Predicts the public score of the newest CSV, or of --csv.  Joins submissions/ledger.csv with Kaggle's list, also for
what was submitted by hand, and tells what the newest score means.  `local` is the accuracy on CIFAR-10's labelled
test_batch; the gap is local minus public.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipeline import cli
from pipeline.config import Paths, competition
from pipeline.console import duration
from pipeline.errors import AccessDenied, BadData, MissingInput, NetworkError, PipelineError
from pipeline.gap import comparison
from pipeline.gap.assessment import assess, record
from pipeline.gap.comparison import Findings, compare, show, table
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import Kaggle
from pipeline.reporting import figures
from pipeline.reporting.figures import draw_pictures
from pipeline.store import ledger, runs, submissions
from pipeline.store.manifest import Manifest
from pipeline.store.submissions import LocalCsv

POLL = 2.0  # seconds between two looks at Kaggle's list, while something is being scored


def check(
    slug: str, paths: Paths, kaggle: Kaggle, *, csv: Path | None = None, wait: float = 0.0,
    pictures: Path | None = None, clock: Callable[[], float] = time.monotonic,
) -> Findings:  # fmt: skip
    """Predict the score of `csv`, by default of the newest CSV, bring the ledger up to date and compare.

    The prediction is written into the ledger before Kaggle is asked for scores.  Without credentials only the
    ledger is looked at.  Submissions that are being scored just now are waited for, up to `wait` seconds.
    `pictures` is the folder for pictures of what is foreign and uncertain (pipeline.reporting.figures).

    Raises:
        NetworkError, AccessDenied: Kaggle was asked and did not answer.
        MissingInput: pictures are wanted, and the data is not preprocessed here.
        BadData: the ledger is damaged; `csv` was not written by predict, was edited, or cannot be judged; pictures are
            wanted, and the images here are others by now.
    """
    book = paths.submissions / ledger.NAME
    csvs = submissions.local_csvs(paths.submissions, slug)
    subject = _newest_csv(csvs, paths) if csv is None else submissions.local_csv(csv, slug)
    judged = not_judged = None
    if subject is not None:
        try:
            judged = assess(subject, csvs, ledger.read(book), competition(slug))
            record(book, judged, datetime.now(UTC))
        except BadData as error:
            if csv is not None:
                raise
            not_judged = str(error)
    not_asked = None
    try:
        credentials.require(kaggle.environ)
    except AccessDenied as error:
        not_asked, entries = str(error), ledger.current(ledger.read(book), slug)
    else:
        end = clock() + wait
        entries = comparison.sync(book, slug, kaggle)
        if wait and any(entry.status == ledger.PENDING for entry in entries):
            kaggle.log(f"check: being scored, waiting for up to {duration(wait)}")
        while clock() < end and any(entry.status == ledger.PENDING for entry in entries):
            kaggle.sleep(POLL)
            entries = comparison.sync(book, slug, kaggle)
    drawn: Sequence[Path] = ()
    if pictures is not None and judged is not None:
        whole = judged.whole()
        data = figures.images(judged.csv, whole, paths.processed / slug)
        drawn = draw_pictures(whole, judged.diagnosis, data, pictures, judged.csv.path.stem)
    only = subject.sidecar.csv_sha256 if subject is not None and csv is not None else None
    compared = compare(competition(slug), entries, csvs, _facts(paths.processed / slug), not_asked, only)
    return Findings(compared, subject, judged, not_judged, ledger.predictions(ledger.read(book), slug), drawn)


def _facts(processed: Path) -> Mapping[str, Any]:
    """What preprocess found out; nothing, if it has not run or its folder is damaged: the comparison goes on."""
    try:
        manifest = Manifest.read(processed)
    except BadData:
        return {}
    return manifest.facts if manifest else {}


def _newest_csv(csvs: Sequence[LocalCsv], paths: Paths) -> LocalCsv | None:
    """The newest CSV of the run that train finished last, alone or with others, else the newest of all.

    Those of networks over the budget do not count: they cannot be submitted.
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


@cli.stage_command("""
python -m pipeline.check                             the default competition
python -m pipeline.check --csv submissions/sub.csv   that CSV
python -m pipeline.check --json                      for programs; accuracies in per cent
python -m pipeline.check --pictures submissions      and what is foreign or uncertain, as pictures
python -m pipeline.check --fail-over 12              exit code 1 if the newest gap is over 12 points
""")
@cli.competition
@cli.csv("The CSV to judge, written by predict; by default the newest of the run that train finished last.")
@cli.as_json
@click.option("--fail-over", metavar="POINTS", type=cli.Finite(min=-100, max=100),
              help="End with exit code 1 if the newest gap is larger.")  # fmt: skip
@cli.wait(30, "a submission that is being scored")
@click.option("--pictures", metavar="FOLDER", type=cli.FOLDER,
              help="Draw the most foreign and the least certain hidden images and the distributions of the answers "
              "there.")  # fmt: skip
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
    tell = partial(click.echo, err=True)  # stdout may be JSON
    try:
        checked = check(slug, paths, Kaggle(os.environ, timeout, log=tell), csv=csv, wait=wait, pictures=pictures)
    except NetworkError:
        lines = ledger.read(submissions / ledger.NAME)
        entries = ledger.current(lines, slug)
        if entries and not as_json:
            cli.log(table(entries, ledger.predictions(lines, slug)))
        raise
    if as_json:
        cli.log(json.dumps(checked.to_dict(), indent=2))
    else:
        show(checked, cli.log)
    newest = checked.comparison.newest
    gap = newest.gap_public if newest else None
    if fail_over is not None and gap is None and newest is not None:
        raise PipelineError("--fail-over: no submission of a CSV from here has a score yet, so there is no gap")
    if fail_over is not None and gap is not None and gap > fail_over:
        raise PipelineError(f"the gap of {gap:.2f} points is over --fail-over {fail_over:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "check", argv)


if __name__ == "__main__":
    sys.exit(main())
