"""Stage 5: a CSV -> Kaggle: one submission, whatever Kaggle replies, and its score.

    python -m pipeline.submit

A submission's description has a tag with the CSV's sha256, which identifies ours.  Under a lock,
submit reads Kaggle's list and the ledger, and sends a CSV only if it is in neither.  What follows depends on the reply:

    a ref                 looked up in the list, because a reply may name another submission
    429, failed upload    not accepted: waits as Retry-After says, looks for the tag, sends again (TRIES in all); a 5xx
                          before the request that creates the submission counts as a failed upload
    5xx, 408, no reply    to that request: open, Kaggle may still carry it out.  Looks for the tag for `patience`
                          seconds; if it does not show up, ends with exit code 6 and sends nothing more
    400, 401, 403, 404    refused: the ledger gets a line `error`; ends with the exit code of pipeline.errors

Before sending, the ledger gets a line `sending`.  A later run that finds it first looks for the tag for the rest of
`patience`, and only then sends again.
"""

import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from pipeline import cli, commands, console
from pipeline.config import PARAMETER_LIMIT, Paths
from pipeline.console import duration, working
from pipeline.errors import Log, NetworkError, PipelineError, ScoringError, SubmissionLimit, UsageError
from pipeline.kaggle_api import credentials, ledger_sync
from pipeline.kaggle_api.client import REFUSALS, Kaggle
from pipeline.store import atomic, ledger, overview, runs, submission_format
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord
from pipeline.store.processed import Processed
from pipeline.store.submissions import NotOurs, carries, default_csv, local_csv, local_csvs, tag

TRIES = 3  # of sending, each after a search for the tag
LOOKING = "looking for its tag in Kaggle's list"
LATER = "run the same command again in some minutes; it looks there first"


@dataclass(frozen=True)
class Sender:
    """Sends a CSV once, and waits for its score.  Times are in seconds."""

    paths: Paths
    kaggle: Kaggle
    log: Log
    wait: float = 900.0  # for the score; 0: do not wait
    poll: float = 5.0  # between two requests for the score
    settle: float = 15.0  # of looking for the tag of a refused submission before it is sent again
    patience: float = 90.0  # within which a submission without a reply shows up, or never
    look: float = 5.0  # between two requests for the tag
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def submit(self, csv: Path, slug: str | None = None, *, again: bool = False) -> Entry:
        """Validate and submit `csv` once, and wait for its score; returns its state in the ledger.

        Args:
            csv: the CSV.
            slug: the competition; by default the one in the CSV's sidecar.
            again: submit even if this CSV was submitted before, or is predicted below the best score.

        Raises:
            BadData, MissingInput, UsageError: the CSV is not a valid submission; nothing was sent.
            SubmissionLimit: no submission is left today.
            NetworkError: also if the score did not come in time; the same command waits again.
            ScoringError: Kaggle could not score it.
        """
        draft = _draft(csv, slug, self.paths, self.log)
        self.log(f"submit: {csv} to {draft.competition}")
        if not again and (worse := ledger.below_best(ledger.read(self._ledger), draft.competition, draft.csv_sha256)):
            return replace(draft, status=overview.NOT_SUBMITTED, note=worse)
        data = Processed.open(self.paths.processed / draft.competition)
        submission_format.validate(csv, data.array("hidden_ids"))
        credentials.require(self.kaggle.environ)
        with atomic.lock(self.paths.submissions / "submit"):
            entry = self._send_once(csv, draft, again)
        with working(f"waiting for the score, up to {duration(self.wait)}"):
            return self._await_score(entry)

    @property
    def _ledger(self) -> Path:
        return self.paths.submissions / ledger.NAME

    def _send_once(self, csv: Path, draft: Entry, again: bool) -> Entry:
        """The existing submission of this CSV, or a new one; with `again` a new one once that one's end is known."""
        slug, known = draft.competition, ledger.read(self._ledger)
        # First add what was sent by hand, by a killed run, or before the ledger was lost.
        listed, csvs = self.kaggle.submissions(slug), local_csvs(self.paths.submissions, slug)
        entries = ledger_sync.sync(self._ledger, known, listed, csvs, slug, also=[draft])
        own = [entry for entry in ledger.current(entries, slug) if entry.csv_sha256 == draft.csv_sha256]
        earlier = {entry.ref: entry for entry in own if entry.ref is not None}
        # Its sender was stopped before the score came: the same command only waits, --again or not.
        waiting = {e.csv_sha256 for e in ledger.current(known, slug) if e.status == ledger.PENDING}
        if earlier and (draft.csv_sha256 in waiting or not again):
            newest = list(earlier.values())[-1]
            self.log(f"submit: submitted before, as ref {newest.ref} ({newest.status}); not sending it twice")
            return newest
        sending = [entry.time for entry in own if entry.status == ledger.SENDING]
        if sending and (seconds := self._open_for(sending[-1])):
            self.log(f"submit: an earlier run may have sent it just now; {LOOKING}, {seconds:.0f} s")
            if (ref := self._look(draft, earlier, seconds)) is not None:
                return self._accepted(draft, ref)
        limits = self.kaggle.limits(slug)
        if limits.allowed == 0 and limits.total > 0:
            when = "this competition takes no more" if limits.by_total else "try again after 00:00 UTC"
            raise SubmissionLimit(f"no submission is left ({limits.today} today, {limits.total} in all): {when}")
        self._note(draft, ledger.SENDING)
        return self._accepted(draft, self._send(csv, draft, earlier))

    def _open_for(self, sent: str) -> float:
        """For how many more seconds a submission without a reply, sent at this time, may show up."""
        age = (self.now() - ledger_sync.instant(sent)).total_seconds()
        return min(max(self.patience - age, 0.0), self.patience)  # also if the clock was put back

    def _send(self, csv: Path, draft: Entry, earlier: Collection[int]) -> int:
        """Send it and return the ref, as the module's docstring says."""
        description = tag(draft.run or "unknown", draft.csv_sha256, draft.local_validation)
        tries = 0
        while True:
            tries += 1
            try:
                named = self.kaggle.submit(draft.competition, csv, description)
            except NetworkError as error:
                if (ref := self._arrived(draft, earlier, error)) is not None:
                    return ref
                if tries == TRIES:
                    raise
            except REFUSALS as error:
                self._note(draft, ledger.ERROR, str(error))
                raise
            else:  # `named` may be another submission
                if (ref := self._look(draft, earlier, self.patience, named)) is None:
                    raise NetworkError(f"Kaggle named ref {named}, which is another submission: {LATER}")
                return ref

    def _arrived(self, draft: Entry, earlier: Collection[int], error: NetworkError) -> int | None:
        """The ref of a submission that arrived in spite of `error`; None if it can be sent again.

        Raises:
            NetworkError: it is unknown until the next run.
        """
        seconds = self.patience if error.unanswered else max(self.settle, error.retry_after or 0.0)
        self.log(f"submit: {error}; it may still have arrived: {LOOKING}, {seconds:.0f} s")
        if (ref := self._look(draft, earlier, seconds)) is not None:
            self.log(f"submit: it did arrive, as ref {ref}")
        elif error.unanswered:
            raise NetworkError(f"Kaggle did not say whether it accepted the submission: {LATER}") from error
        return ref

    def _look(self, draft: Entry, earlier: Collection[int], seconds: float, named: int | None = None) -> int | None:
        """The ref of the newest submission with our tag that is not among the `earlier` ones.

        Looks for `seconds`; then returns `named`, the ref in Kaggle's reply, unless the list has it as another's.

        Raises:
            NetworkError: Kaggle's list is unavailable.
        """
        end = self.monotonic() + seconds
        if named is None:  # without a reply the list has hardly got it yet
            self.kaggle.sleep(self.look)
        while True:
            try:
                listed = {item.ref: item for item in self.kaggle.submissions(draft.competition)}
            except PipelineError as error:
                taken = "may have accepted the submission" if named is None else f"accepted it (ref {named})"
                raise NetworkError(f"Kaggle {taken}, and then: {error}; {LATER}") from error
            own = [ref for ref, item in listed.items() if carries(item.description, draft.csv_sha256)]
            if new := set(own) - set(earlier):
                return max(new)
            if self.monotonic() >= end:
                return None if named in listed else named
            self.kaggle.sleep(self.look)

    def _accepted(self, draft: Entry, ref: int) -> Entry:
        """The ledger's line for a submission that Kaggle has."""
        entry = self._note(replace(draft, ref=ref), ledger.PENDING)
        self.log(f"submit: submitted (ref {ref})")
        return entry

    def _await_score(self, entry: Entry) -> Entry:
        """Wait for the score of this ref."""
        assert entry.ref is not None  # Kaggle has it
        end = self.monotonic() + self.wait
        while self.wait and entry.status == ledger.PENDING:
            try:
                submission = self.kaggle.submission(entry.competition, entry.ref)
            except NetworkError as error:
                raise NetworkError(f"ref {entry.ref} was accepted, its score is not known yet: {error}") from error
            if submission is not None and not ledger_sync.is_of(submission, entry):
                raise NetworkError(f"Kaggle named ref {entry.ref}, which is another submission: {LATER}")
            if submission is not None and submission.status.lower() != ledger.PENDING:
                entry = ledger_sync.updated(entry, submission)
                ledger.append(self._ledger, [entry])
            elif self.monotonic() > end:
                later = f"look later with `{commands.command('check', entry.competition, self.paths)}`"
                raise NetworkError(f"ref {entry.ref} was accepted and has no score after {self.wait:.0f} s: {later}")
            else:
                self.kaggle.sleep(self.poll)
        if entry.status == ledger.ERROR:
            raise ScoringError(f"Kaggle could not score ref {entry.ref}: {entry.note or 'no reason given'}")
        return entry

    def _note(self, draft: Entry, status: str, note: str = "") -> Entry:
        """A new line in the ledger."""
        entry = replace(draft, time=self.now().isoformat(timespec="seconds"), status=status, note=note)
        ledger.append(self._ledger, [entry])
        return entry


def _draft(csv: Path, slug: str | None, paths: Paths, log: Log) -> Entry:
    """The ledger's entry before submission; without a run if predict did not write the CSV."""
    try:
        sidecar = local_csv(csv).sidecar
    except NotOurs as error:
        if slug is None and len(found := overview.competitions(paths)) == 1:
            (slug,) = found
        if slug is None:
            raise UsageError(f"{error}: say what it is for with --competition SLUG") from None
        log(f"submit: {error}, so its score cannot be predicted")
        return Entry(competition=slug, csv_sha256=FileRecord.of(csv).sha256)
    if slug not in (None, sidecar.competition):
        raise UsageError(f"{csv} was predicted for {sidecar.competition}, not for --competition {slug}")
    if not sidecar.submittable:
        limit = f"the competition's {PARAMETER_LIMIT:,} trainable parameters"
        raise UsageError(f"{csv} comes from a model over {limit}: submit one within the limit")
    if any(map(runs.is_pretrained, sidecar.weights)):
        raise UsageError(f"{csv} comes from bundled weights, which the rules forbid: train, and submit your own")
    return Entry.of(sidecar)


def _newest(paths: Paths, slug: str | None) -> Path:
    """The CSV that is submitted by default (see store.submissions.default_csv)."""
    # Without any run there may be a CSV of the bundled weights, which must not be submitted.
    runs.latest(paths.models)
    # A CSV for another competition is refused as if it had been named.
    if not (csvs := local_csvs(paths.submissions, slug)):
        slug, csvs = None, local_csvs(paths.submissions)
    return default_csv(csvs, paths, slug).path


@cli.stage_command("""
python -m pipeline.submit                                the newest CSV of the run that train finished last
python -m pipeline.submit --csv submissions/sub.csv      that CSV
python -m pipeline.submit --csv other.csv --competition SLUG
""")
@cli.csv("The CSV to submit; by default the newest of what train finished last, a run or all seeds.")
@cli.slug("Last part of the competition's URL, or $PIPELINE_COMPETITION; needed for a CSV not written by predict.",
          envvar=commands.COMPETITION)  # fmt: skip
@click.option("--again", is_flag=True,
              help="Submit it even if it was submitted before or is predicted below your best score.")  # fmt: skip
@cli.wait(900, "the score")
@cli.poll(5)
@cli.timeout
@cli.processed
@cli.models
@cli.submissions
def command(
    csv: Path | None, slug: str | None, again: bool, wait: float, poll: float, timeout: float, paths: Paths,
) -> None:  # fmt: skip
    """Submit a CSV to Kaggle once, and wait for its score.  This costs one of today's submissions."""
    csv = csv if csv is not None else _newest(paths, slug)
    kaggle = Kaggle(timeout=timeout, log=console.log)
    entry = Sender(paths, kaggle, console.log, wait, poll).submit(csv, slug, again=again)
    scores = {"public": entry.public, "private": entry.private}
    shown = [f"{name} {score:.2f}%" for name, score in scores.items() if score is not None]
    why = "   ".join(shown) or (f"{entry.note} (--again submits it)" if entry.ref is None else "no score yet")
    console.show(f"{csv if entry.ref is None else f'ref {entry.ref}'} ({entry.status}): {why}")
    cli.announce("check", entry.competition, paths)


main = partial(cli.run, command, "submit")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
