"""Stage 6: local accuracy against Kaggle's score: the ledger, the gap, and whether it is luck.

    python -m pipeline.check

Joins submissions/ledger.csv with Kaggle's list, also for what was submitted by hand, and tells what the
newest score means.  `local` is the accuracy on CIFAR-10's labelled test_batch; the gap is local minus public.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipeline import cli
from pipeline.config import Paths, competition
from pipeline.errors import AccessDenied, BadData, MissingInput, NetworkError, PipelineError, Say
from pipeline.gap import join, ledger
from pipeline.gap.comparison import Comparison, compare
from pipeline.gap.join import LocalCsv
from pipeline.gap.ledger import Entry
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import Kaggle
from pipeline.store import runs, sidecar
from pipeline.store.manifest import Manifest

POLL = 2.0  # seconds between two looks at Kaggle's list, while something is being scored


def check(
    slug: str, paths: Paths, kaggle: Kaggle, *, wait: float = 0.0, clock: Callable[[], float] = time.monotonic
) -> Comparison:
    """Bring the ledger up to date and compare.

    Without credentials only the ledger is looked at.  Submissions that are being scored just now are waited
    for, up to `wait` seconds.

    Raises:
        NetworkError, AccessDenied: Kaggle was asked and did not answer.
        BadData: the ledger is damaged.
    """
    book = paths.submissions / ledger.NAME
    not_asked = None
    try:
        credentials.require(kaggle.environ)
    except AccessDenied as error:
        not_asked, entries = str(error), ledger.current(ledger.read(book), slug)
    else:
        end = clock() + wait
        entries = join.sync(book, slug, kaggle)
        while clock() < end and any(entry.status == ledger.PENDING for entry in entries):
            kaggle.sleep(POLL)
            entries = join.sync(book, slug, kaggle)
    csvs = join.local_csvs(paths.submissions, slug)
    return compare(competition(slug), entries, csvs, _facts(paths.processed / slug), not_asked)


def _facts(processed: Path) -> Mapping[str, Any]:
    """What preprocess found out; nothing, if it has not run or its folder is damaged: the comparison goes on."""
    try:
        manifest = Manifest.read(processed)
    except BadData:
        return {}
    return manifest.facts if manifest else {}


# --- what a person reads ----------------------------------------------------------------------------------


def show(checked: Comparison, paths: Paths, say: Say) -> None:
    """Print the table and what it means."""
    if checked.not_asked:
        say(f"check: Kaggle was not asked, this is the ledger alone ({checked.not_asked})")
    if checked.submissions:
        say(_table(checked.submissions))
        say("")
        for line in _meaning(checked):
            say(line)
    else:
        say(f"check: nothing has been submitted to {checked.competition} yet")
    newest = _newest_csv(checked.competition, paths)
    if newest is None:
        say("check: there is no CSV to submit; `python -m pipeline.predict` writes one")
    elif newest.sidecar.csv_sha256 not in {entry.csv_sha256 for entry in checked.submissions if entry.ref}:
        say(f"check: {newest.path} has not been submitted.  To submit it:")
        say(f"  {submit_command(newest)}")


def _newest_csv(slug: str, paths: Paths) -> LocalCsv | None:
    """The newest CSV of the run that train finished last, alone or with others, else the newest of all.

    Those of networks over the budget do not count: they cannot be submitted.
    """
    csvs = [csv for csv in join.local_csvs(paths.submissions, slug) if csv.sidecar.submittable]
    try:
        latest = runs.latest(paths.models)
    except (MissingInput, BadData):
        latest = None
    return max(
        csvs,
        key=lambda csv: (latest in (csv.sidecar.run, *csv.sidecar.runs), csv.sidecar.created),
        default=None,
    )


def submit_command(csv: LocalCsv) -> str:
    """The exact command that submits `csv`, tagged so that it is recognised afterwards."""
    known = csv.sidecar
    tag = sidecar.tag(known.run, known.csv_sha256, known.validation_accuracy)
    return f'kaggle competitions submit -c {known.competition} -f {shlex.quote(str(csv.path))} -m "{tag}"'


def _table(entries: Sequence[Entry]) -> str:
    rows = [
        {
            "ref": "-" if entry.ref is None else str(entry.ref),
            "time (UTC)": entry.time[:16].replace("T", " "),
            "run": entry.run or "-",
            "validation": _number(entry.local_validation),
            "local": _number(entry.local_test),
            "public": _number(entry.public),
            "private": _number(entry.private),
            "gap": _number(entry.gap_public),
            "status": entry.status + ("*" if entry.note else ""),
        }
        for entry in entries
    ]
    notes = [f"* {entry.ref}: {entry.note}" for entry in entries if entry.note]
    import pandas as pd  # noqa: PLC0415 - half a second that --help need not take

    return "\n".join([pd.DataFrame(rows).to_string(index=False), *notes])


def _meaning(checked: Comparison) -> list[str]:
    newest = checked.newest
    if newest is None or newest.public is None:
        if newest is not None and newest.status == ledger.COMPLETE:
            return [f"check: ref {newest.ref} is complete and no score is shown for it"]
        return ["check: no score yet; look again later"]
    if newest.local_test is None or newest.gap_public is None:
        return [f"check: ref {newest.ref} scored {newest.public:.2f} %; its CSV is not from here"]
    lines = [
        f"check: ref {newest.ref}, run {newest.run}: local {newest.local_test:.2f} %, "
        f"public {newest.public:.2f} %, a gap of {newest.gap_public:.2f} points"
    ]
    if checked.optimistic:
        lines.append("check: that local accuracy is optimistic: the best epoch was selected on the same test_batch")
    if checked.noise is not None:
        rows = f"{checked.public_rows} public rows" + (", assumed: half of them" if checked.rows_assumed else "")
        verdict = "more than sampling noise explains" if checked.noise.exceeds else "within sampling noise"
        lines.append(f"check: that is {verdict} (±{checked.noise.limit:.2f} points at 95 %; {rows})")
    line = competition(checked.competition).line
    if checked.line_expects is not None and line is not None:
        off = newest.public - checked.line_expects
        lines.append(
            f"check: this competition's published line expects {checked.line_expects:.2f} % for that local "
            f"accuracy; the score is {off:+.2f} points off it ({line.source})"
        )
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


@cli.stage_command("""
python -m pipeline.check                       the default competition
python -m pipeline.check --json                for programs; accuracies in per cent
python -m pipeline.check --fail-over 12        exit code 1 if the newest gap is over 12 points
""")
@cli.competition
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--fail-over", metavar="POINTS", type=float, help="End with exit code 1 if the newest gap is larger.")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long to wait for a submission that is being scored.",
)
@cli.timeout
@cli.processed
@cli.models
@cli.submissions
def command(
    slug: str, as_json: bool, fail_over: float | None, wait: float, timeout: float,
    processed: Path, models: Path, submissions: Path,
) -> None:  # fmt: skip
    """Compare local accuracy with Kaggle's score, and keep the ledger."""
    paths = Paths(processed=processed, models=models, submissions=submissions)
    tell = partial(click.echo, err=True)  # stdout may be JSON
    try:
        checked = check(slug, paths, Kaggle(os.environ, timeout, tell=tell), wait=wait)
    except NetworkError:
        entries = ledger.current(ledger.read(submissions / ledger.NAME), slug)
        if entries and not as_json:
            cli.say(_table(entries))
        raise
    if as_json:
        cli.say(json.dumps(checked.to_dict(), indent=2))
    else:
        show(checked, paths, cli.say)
    gap = checked.newest.gap_public if checked.newest else None
    if fail_over is not None and gap is None and checked.newest is not None:
        raise PipelineError("--fail-over: no submission of a CSV from here has a score yet, so there is no gap")
    if fail_over is not None and gap is not None and gap > fail_over:
        raise PipelineError(f"the gap of {gap:.2f} points is over --fail-over {fail_over:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "check", argv)


if __name__ == "__main__":
    sys.exit(main())
