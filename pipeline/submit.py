"""Stage 5: a CSV -> Kaggle: a ref, never a guess; never twice; and the score of just that submission.

    python -m pipeline.submit

How a CSV becomes one submission whatever Kaggle answers: pipeline.kaggle_api.once.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline import cli, commands
from pipeline.config import PARAMETER_BUDGET, Paths
from pipeline.console import FIRST_LINE, LINES, duration
from pipeline.errors import (
    AccessDenied,
    BadData,
    Log,
    MissingInput,
    NetworkError,
    ScoringError,
    SubmissionLimit,
    UsageError,
)
from pipeline.gap import comparison
from pipeline.kaggle_api import credentials, submission_format
from pipeline.kaggle_api.client import Kaggle, Submission
from pipeline.kaggle_api.once import Clock, Sending, look, send
from pipeline.store import atomic, ledger, runs, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord
from pipeline.store.processed import Processed
from pipeline.store.submissions import Sidecar


@dataclass(frozen=True)
class Submitted:
    """The submission's state in the ledger; `done` is False when it had been submitted before."""

    entry: Entry
    done: bool


def submit(
    csv: Path, paths: Paths, kaggle: Kaggle, log: Log, *, slug: str | None = None, again: bool = False,
    clock: Clock | None = None,
) -> Submitted:  # fmt: skip
    """Validate and submit `csv`, and wait for its score.

    Args:
        slug: the competition; by default the one in the CSV's sidecar.
        again: submit even if this very CSV was submitted before.

    Raises:
        BadData, MissingInput: the CSV is not a valid submission; nothing was sent.
        SubmissionLimit: no submission is left today.
        NetworkError: also when the score did not come in time; running it again goes on waiting.
        ScoringError: Kaggle could not score it.
    """
    clock = clock or Clock()
    draft = _draft(csv, slug)
    credentials.require(kaggle.environ)
    data = Processed.open(paths.processed / draft.competition)
    submission_format.validate(csv, data.array("hidden_ids"))
    book = paths.submissions / ledger.NAME
    with atomic.lock(paths.submissions / "submit"):
        entry, done = _send(csv, draft, kaggle, book, again, clock, log)
    return Submitted(_await_score(entry, kaggle, book, clock, log), done)


def _draft(csv: Path, slug: str | None) -> Entry:
    """The ledger's entry as far as it is known beforehand; a CSV without a sidecar has an unknown run."""
    if not csv.is_file():
        raise MissingInput(f"{csv} does not exist: run `python -m pipeline.predict --out {csv}` first")
    known, digest = Sidecar.read(csv), FileRecord.of(csv).sha256
    if known is not None and known.csv_sha256 != digest:
        raise BadData(
            f"{csv} was edited after predict wrote it: predict again with --force, or rename it and add --competition"
        )
    if known is not None:
        if slug is not None and slug != known.competition:
            raise UsageError(f"{csv} was predicted for {known.competition}, not for --competition {slug}")
        if not known.submittable:
            raise UsageError(
                f"{csv} comes from a network over the competition's {PARAMETER_BUDGET:,} trainable parameters: "
                "submit a run within them"
            )
        local = known.validation_accuracy, known.test_accuracy
        return Entry("", known.competition, known.run, digest, None, *local, None, None, "")
    if slug is None:
        raise UsageError(f"{csv} was not written by predict: say what it is for with --competition SLUG")
    return Entry("", slug, "", digest, None, None, None, None, None, "")


def _send(
    csv: Path, draft: Entry, kaggle: Kaggle, book: Path, again: bool, clock: Clock, log: Log
) -> tuple[Entry, bool]:
    """The ledger's entry for this CSV's submission, and whether it was sent now."""
    # The ledger first learns what was sent by hand, by a run that was killed, or before the ledger was lost.
    states = comparison.sync(book, draft.competition, kaggle, also=[draft])
    before = [entry for entry in states if entry.csv_sha256 == draft.csv_sha256 and entry.ref is not None]
    if before and not again:
        newest = before[-1]
        log(f"submit: {csv} was submitted before, as ref {newest.ref} ({newest.status}); not sending it twice")
        return newest, False
    description = submissions.tag(draft.run or "unknown", draft.csv_sha256, draft.local_validation)
    sending = Sending(csv, draft.csv_sha256, draft.competition, description, {entry.ref for entry in before})
    if seconds := _may_turn_up(states, draft, clock):
        log(f"submit: an earlier run may have sent it just now; looking for its tag in Kaggle's list, {seconds:.0f} s")
        if (found := look(sending, kaggle, clock, seconds)) is not None:
            return _taken(found, draft, book, clock, log), False
    limits = kaggle.limits(draft.competition)
    if limits.allowed == 0 and limits.total > 0:
        when = "this competition takes no more" if limits.by_total else "try again after 00:00 UTC"
        raise SubmissionLimit(f"no submission is left ({limits.today} today, {limits.total} in all): {when}")
    log(f"submit: sending {csv} to {draft.competition} as {description!r}")
    ledger.append(book, [dataclasses.replace(draft, time=clock.now(), status=ledger.SENDING)])
    return _taken(send(sending, kaggle, clock, log), draft, book, clock, log), True


def _may_turn_up(states: Sequence[Entry], draft: Entry, clock: Clock) -> float:
    """For how many more seconds a submission may turn up that an earlier run sent without seeing what became of it."""
    sent = [entry.time for entry in states if entry.csv_sha256 == draft.csv_sha256 and entry.ref is None]
    if not sent:
        return 0.0
    age = (comparison.instant(clock.now()) - comparison.instant(sent[-1])).total_seconds()
    return min(max(clock.patience - age, 0.0), clock.patience)  # a clock that was put back makes nobody wait longer


def _taken(ref: int, draft: Entry, book: Path, clock: Clock, log: Log) -> Entry:
    """The ledger's new line for a submission that Kaggle has."""
    entry = dataclasses.replace(draft, time=clock.now(), ref=ref, status=ledger.PENDING)
    ledger.append(book, [entry])
    log(f"submit: Kaggle took it as ref {ref}")
    return entry


def _await_score(entry: Entry, kaggle: Kaggle, book: Path, clock: Clock, log: Log) -> Entry:
    """Poll for the score of this very ref until the deadline."""
    assert entry.ref is not None
    start, tell = clock.monotonic(), FIRST_LINE
    while entry.status == ledger.PENDING and clock.deadline:
        found = _own(entry, kaggle, book)
        if found is not None and found.status.lower() != ledger.PENDING:
            entry = comparison.updated(entry, found)
            ledger.append(book, [entry])
        elif (waited := clock.monotonic() - start) > clock.deadline:
            raise NetworkError(
                f"ref {entry.ref} was accepted and has no score after {clock.deadline:.0f} s: "
                "look later with `python -m pipeline.check`"
            )
        else:
            if waited >= tell:
                tell = waited + LINES
                log(f"submit: being scored for {duration(waited)}, waiting for up to {duration(clock.deadline)}")
            clock.sleep(clock.poll)
    if entry.status == ledger.ERROR:
        raise ScoringError(f"Kaggle could not score ref {entry.ref}: {entry.note or 'no reason given'}")
    if entry.status == ledger.COMPLETE:
        known = {"public": entry.public, "private": entry.private}
        scores = [f"{name} {value:.2f} %" for name, value in known.items() if value is not None]
        log(f"submit: ref {entry.ref} is scored: {', '.join(scores) or 'no score is shown'}")
    return entry


def _own(entry: Entry, kaggle: Kaggle, book: Path) -> Submission | None:
    """What Kaggle says of this very submission, or None while it does not know it.

    Raises:
        NetworkError: Kaggle did not answer, or `entry` has the ref of a submission that is not ours.
    """
    assert entry.ref is not None

    def ours(item: Submission) -> bool:
        return submissions.carries(item.description, entry.csv_sha256) or entry.note == comparison.BY_HAND

    try:
        with suppress(AccessDenied):  # another team's, perhaps: the list tells whether it is ours
            found = kaggle.submission(entry.competition, entry.ref)
            if found is None or ours(found):
                return found
        listed = [item for item in kaggle.submissions(entry.competition) if item.ref == entry.ref and ours(item)]
    except NetworkError as error:
        raise NetworkError(f"ref {entry.ref} was accepted, its score is not known yet: {error}") from error
    if not listed:
        # Taken back in the ledger, so that the next run does not hold it for ours either.
        ledger.append(book, [Entry(entry.time, entry.competition, "", "", entry.ref, None, None, None, None,
                                   ledger.ERROR, "another submission than the one it was named for")])  # fmt: skip
        raise NetworkError(
            f"ref {entry.ref} is another submission than the one that Kaggle named it for: run "
            "`python -m pipeline.submit` again; it looks for its own in Kaggle's list first"
        )
    return listed[0]


@cli.stage_command("""
python -m pipeline.submit                                the CSV of the run that train finished last
python -m pipeline.submit --csv submissions/sub.csv      that CSV
python -m pipeline.submit --csv other.csv --competition SLUG
""")
@cli.csv("The CSV to submit; by default submissions/RUN.csv of the run that train finished last.")
@cli.slug("As in its URL; or $PIPELINE_COMPETITION; needed for a CSV that predict did not write.",
          envvar=cli.COMPETITION)  # fmt: skip
@click.option("--again", is_flag=True, help="Submit this very CSV once more, at the cost of a daily submission.")
@cli.wait(900, "the score")
@click.option("--poll", metavar="SECONDS", type=cli.Finite(min=0.1), default=5, show_default=True,
              help="Between two looks at Kaggle.")  # fmt: skip
@cli.timeout
@cli.processed
@cli.models
@cli.submissions
def command(
    csv: Path | None, slug: str | None, again: bool, wait: float, poll: float, timeout: float,
    processed: Path, models: Path, submissions: Path,
) -> None:  # fmt: skip
    """Submit a CSV to Kaggle once, and wait for its score.  This costs one of today's submissions."""
    paths = Paths(processed=processed, models=models, submissions=submissions)
    csv = csv if csv is not None else submissions / f"{runs.latest(models)}.csv"
    clock = Clock(deadline=wait, poll=poll)
    kaggle = Kaggle(os.environ, timeout, tell=cli.log)
    done = submit(csv, paths, kaggle, cli.log, slug=slug, again=again, clock=clock)
    commands.announce(commands.command("check", done.entry.competition, paths), cli.log, os.environ)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "submit", argv)


if __name__ == "__main__":
    sys.exit(main())
