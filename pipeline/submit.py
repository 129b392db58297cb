"""Stage 5: a CSV -> Kaggle: one submission, whatever Kaggle answers, and the score of that very submission.

    python -m pipeline.submit

A submission's description carries a tag with the CSV's sha256: what carries it is ours, nothing else.  Under a lock,
submit reads Kaggle's list and the ledger, and sends only what is in neither.  What follows depends on the answer:

    a ref                 looked up in the list, because an answer may name another submission
    429, failed upload    not taken: waits as Retry-After says, looks for the tag, sends again (TRIES in all)
    500, 503, no answer   open, Kaggle may still carry it out: looks for the tag for `patience` seconds; if it does not
                          show up, ends with exit code 6 and sends nothing more
    400, 401, 403, 404    refused: ends with the exit code of pipeline.errors

Before sending, the ledger gets a line `sending`.  A later run that finds it, after a kill or an open answer, first
looks for the tag for the rest of `patience`, and sends again only then.
"""

import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from pipeline import cli, commands
from pipeline.config import PARAMETER_LIMIT, Paths
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
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import Kaggle, Submission
from pipeline.store import atomic, ledger, runs, submission_format, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord
from pipeline.store.processed import Processed
from pipeline.store.submissions import Sidecar

TRIES = 3  # of sending, each after a search for the tag
LONGEST_WAIT = 300.0  # seconds that Kaggle can make us wait before the next try
LOOKING = "looking for its tag in Kaggle's list"


@dataclass(frozen=True)
class Clock:
    """Time limits, and the clock they are measured by."""

    deadline: float = 900.0  # seconds, for the score; 0: do not wait
    poll: float = 5.0  # seconds between two looks for the score
    settle: float = 15.0  # seconds of looking for the tag of a refused submission, before it is sent again
    patience: float = 90.0  # seconds within which a submission shows up whose answer was lost, or never
    look: float = 5.0  # seconds between two looks for the tag
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], str] = lambda: datetime.now(UTC).isoformat(timespec="seconds")


def submit(
    csv: Path, paths: Paths, kaggle: Kaggle, log: Log, *, slug: str | None = None, again: bool = False,
    clock: Clock | None = None,
) -> Entry:  # fmt: skip
    """Validate and submit `csv`, unless it was submitted before, and wait for its score; its state in the ledger.

    Args:
        slug: the competition; by default the one in the CSV's sidecar.
        again: submit even if this very CSV was submitted before.

    Raises:
        BadData, MissingInput: the CSV is not a valid submission; nothing was sent.
        SubmissionLimit: no submission is left today.
        NetworkError: also when the score did not come in time; running it again goes on waiting.
        ScoringError: Kaggle could not score it.
    """
    draft = _draft(csv, slug)
    credentials.require(kaggle.environ)
    data = Processed.open(paths.processed / draft.competition)
    submission_format.validate(csv, data.array("hidden_ids"))
    sender = _Sender(csv, draft, kaggle, paths.submissions / ledger.NAME, clock or Clock(), log)
    with atomic.lock(paths.submissions / "submit"):
        entry = sender.send_once(again)
    return sender.await_score(entry)


def _draft(csv: Path, slug: str | None) -> Entry:
    """The ledger's entry as far as it is known beforehand; a CSV without a sidecar has an unknown run."""
    if not csv.is_file():
        raise MissingInput(f"{csv} does not exist: run `python -m pipeline.predict --out {csv}` first")
    sidecar, digest = Sidecar.read(csv), FileRecord.of(csv).sha256
    if sidecar is None:
        if slug is None:
            raise UsageError(f"{csv} was not written by predict: say what it is for with --competition SLUG")
        return Entry("", slug, "", digest, None, None, None, None, None, "")
    if sidecar.csv_sha256 != digest:
        raise BadData(
            f"{csv} was edited after predict wrote it: predict again with --force, or rename it and add --competition"
        )
    if slug not in (None, sidecar.competition):
        raise UsageError(f"{csv} was predicted for {sidecar.competition}, not for --competition {slug}")
    if not sidecar.submittable:
        raise UsageError(
            f"{csv} comes from a network over the competition's {PARAMETER_LIMIT:,} trainable parameters: "
            "submit a run within them"
        )
    local = sidecar.validation_accuracy, sidecar.test_accuracy
    return Entry("", sidecar.competition, sidecar.run, digest, None, *local, None, None, "")


@dataclass(frozen=True)
class _Sender:
    """Sends one CSV, and recognises its submission."""

    csv: Path
    draft: Entry
    kaggle: Kaggle
    ledger_path: Path
    clock: Clock
    log: Log

    def send_once(self, again: bool) -> Entry:
        """The submission of this CSV that Kaggle has already, or a new one; `again`: a new one in any case."""
        draft, folder = self.draft, self.ledger_path.parent
        # The ledger first learns what was sent by hand, by a run that was killed, or before the ledger was lost.
        listed, csvs = self.kaggle.submissions(draft.competition), submissions.local_csvs(folder, draft.competition)
        entries = ledger.read(self.ledger_path)
        entries = comparison.sync(self.ledger_path, entries, listed, csvs, draft.competition, also=[draft])
        own = [e for e in ledger.current(entries, draft.competition) if e.csv_sha256 == draft.csv_sha256]
        earlier = {entry.ref: entry for entry in own if entry.ref is not None}
        if earlier and not again:
            newest = list(earlier.values())[-1]
            before = f"submitted before, as ref {newest.ref} ({newest.status})"
            self.log(f"submit: {self.csv} was {before}; not sending it twice")
            return newest
        if seconds := self._open_for([entry.time for entry in own if entry.ref is None]):
            self.log(f"submit: an earlier run may have sent it just now; {LOOKING}, {seconds:.0f} s")
            if (ref := self._look(earlier, seconds)) is not None:
                return self._accepted(ref)
        self._require_one_left()
        tag = submissions.tag(draft.run or "unknown", draft.csv_sha256, draft.local_validation)
        self.log(f"submit: sending {self.csv} to {draft.competition} as {tag!r}")
        ledger.append(self.ledger_path, [replace(draft, time=self.clock.now(), status=ledger.SENDING)])
        return self._accepted(self._send(tag, earlier))

    def _open_for(self, sent: Sequence[str]) -> float:
        """For how many more seconds a submission may show up that was sent at these times with no answer."""
        if not sent:
            return 0.0
        patience, now = self.clock.patience, comparison.instant(self.clock.now())
        age = (now - comparison.instant(sent[-1])).total_seconds()
        return min(max(patience - age, 0.0), patience)  # a clock that was put back makes nobody wait longer

    def _require_one_left(self) -> None:
        limits = self.kaggle.limits(self.draft.competition)
        if limits.allowed == 0 and limits.total > 0:
            when = "this competition takes no more" if limits.by_total else "try again after 00:00 UTC"
            raise SubmissionLimit(f"no submission is left ({limits.today} today, {limits.total} in all): {when}")

    def _send(self, tag: str, earlier: Collection[int]) -> int:
        """Send it; the ref.  What each answer means is in the module's docstring.

        Raises:
            NetworkError: it did not arrive; or nobody knows, and only the next run can tell.
        """
        for remaining in reversed(range(TRIES)):
            try:
                named = self.kaggle.submit(self.draft.competition, self.csv, tag)
            except NetworkError as error:
                self.log(f"submit: {error}")
                settle = max(self.clock.settle, min(error.retry_after or 0.0, LONGEST_WAIT))
                seconds = self.clock.patience if error.unanswered else settle
                self.log(f"submit: it may have arrived all the same; {LOOKING}, {seconds:.0f} s")
                if (ref := self._look(earlier, seconds)) is not None:
                    self.log(f"submit: it did arrive, as ref {ref}")
                    return ref
                if error.unanswered:
                    raise self._lost("Kaggle left open whether it took it") from error
                if not remaining:
                    raise
            else:
                return self._confirmed(named, earlier)
        raise AssertionError("unreachable")

    def _confirmed(self, named: int, earlier: Collection[int]) -> int:
        """The ref of our submission; `named` is what Kaggle's answer calls it, which may be another's."""
        try:
            ref = self._look(earlier, self.clock.patience, named)
        except NetworkError as error:
            taken = f"Kaggle took {self.csv} as ref {named}, and then: {error}"
            raise NetworkError(f"{taken}; `python -m pipeline.submit` looks there first") from error
        if ref is None:
            raise self._lost(f"Kaggle named ref {named}, which is another submission")
        return ref

    def _look(self, earlier: Collection[int], seconds: float, named: int | None = None) -> int | None:
        """The ref of the newest submission that carries our tag and is none of the `earlier` ones.

        It is looked for during `seconds`, and None if it does not show up; or `named`, if Kaggle's list does not
        have that yet, and so does not show whose it is.
        """
        end, sha256 = self.clock.monotonic() + seconds, self.draft.csv_sha256
        if named is None:  # there was no answer, so the list has hardly got that far
            self.clock.sleep(self.clock.look)
        while True:
            listed = self.kaggle.submissions(self.draft.competition)
            own = [s.ref for s in listed if s.ref not in earlier and submissions.carries(s.description, sha256)]
            if own:
                return max(own)
            if named is not None and all(submission.ref != named for submission in listed):
                return named
            if self.clock.monotonic() >= end:
                return None
            self.clock.sleep(self.clock.look)

    def _lost(self, why: str) -> NetworkError:
        """It was sent and does not show up: a second one now might be one too many."""
        return NetworkError(
            f"{why}, and {self.csv} is not in its list: run `python -m pipeline.submit` again in some minutes; "
            "it looks there first"
        )

    def _accepted(self, ref: int) -> Entry:
        """The ledger's new line for a submission that Kaggle has."""
        entry = replace(self.draft, time=self.clock.now(), ref=ref, status=ledger.PENDING)
        ledger.append(self.ledger_path, [entry])
        self.log(f"submit: Kaggle took it as ref {ref}")
        return entry

    def await_score(self, entry: Entry) -> Entry:
        """Poll for the score of this very ref until the deadline."""
        clock = self.clock
        start, next_line = clock.monotonic(), FIRST_LINE
        while entry.status == ledger.PENDING and clock.deadline:
            current = self._current(entry)
            waited = clock.monotonic() - start
            if current is not None and current.status.lower() != ledger.PENDING:
                entry = comparison.updated(entry, current)
                ledger.append(self.ledger_path, [entry])
                break
            if waited > clock.deadline:
                raise NetworkError(
                    f"ref {entry.ref} was accepted and has no score after {clock.deadline:.0f} s: "
                    "look later with `python -m pipeline.check`"
                )
            if waited >= next_line:
                next_line = waited + LINES
                limit = duration(clock.deadline)
                self.log(f"submit: being scored for {duration(waited)}, waiting for up to {limit}")
            clock.sleep(clock.poll)
        if entry.status == ledger.ERROR:
            raise ScoringError(f"Kaggle could not score ref {entry.ref}: {entry.note or 'no reason given'}")
        if entry.status == ledger.COMPLETE:
            known = {"public": entry.public, "private": entry.private}
            scores = [f"{name} {value:.2f} %" for name, value in known.items() if value is not None]
            self.log(f"submit: ref {entry.ref} is scored: {', '.join(scores) or 'no score is shown'}")
        return entry

    def _current(self, entry: Entry) -> Submission | None:
        """What Kaggle says of this very submission, or None while it does not know it.

        Raises:
            NetworkError: Kaggle did not answer, or `entry` has the ref of a submission that is not ours.
        """
        assert entry.ref is not None

        def is_ours(item: Submission) -> bool:
            return submissions.carries(item.description, entry.csv_sha256) or entry.note == comparison.BY_HAND

        try:
            with suppress(AccessDenied):  # another team's, perhaps: the list tells whether it is ours
                found = self.kaggle.submission(entry.competition, entry.ref)
                if found is None or is_ours(found):
                    return found
            for item in self.kaggle.submissions(entry.competition):
                if item.ref == entry.ref and is_ours(item):
                    return item
        except NetworkError as error:
            raise NetworkError(f"ref {entry.ref} was accepted, its score is not known yet: {error}") from error
        # Taken back in the ledger, so that the next run does not hold it for ours either.
        note = "another submission than the one it was named for"
        unowned = replace(entry, run="", csv_sha256="", local_validation=None, local_test=None)
        ledger.append(self.ledger_path, [replace(unowned, status=ledger.ERROR, note=note)])
        raise NetworkError(
            f"ref {entry.ref} is another submission than the one that Kaggle named it for: run "
            "`python -m pipeline.submit` again; it looks for its own in Kaggle's list first"
        )


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
    kaggle = Kaggle(os.environ, timeout, log=cli.log)
    entry = submit(csv, paths, kaggle, cli.log, slug=slug, again=again, clock=clock)
    commands.announce(commands.command("check", entry.competition, paths), cli.log, os.environ)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "submit", argv)


if __name__ == "__main__":
    sys.exit(main())
