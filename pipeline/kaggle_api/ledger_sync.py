"""Write Kaggle's list of submissions into the ledger: the CSV of each, and its state."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.errors import printable
from pipeline.kaggle_api.client import Submission
from pipeline.store import ledger, submissions
from pipeline.store.ledger import Entry
from pipeline.store.submissions import LocalCsv

BY_HAND = "submitted by hand; recognised by its file name"
# Largest difference between this machine's clock and Kaggle's.  With a longer one, a submission by hand might be taken
# for a CSV of the same name that was predicted after it.
CLOCKS_DIFFER = timedelta(minutes=1)
STATE = ("status", "public", "private", "run")  # a change of these is a new line in the ledger


def sync(
    path: Path, entries: Sequence[Entry], listed: Iterable[Submission], csvs: Sequence[LocalCsv], competition: str,
    also: Sequence[Entry] = (),
) -> list[Entry]:  # fmt: skip
    """Update the ledger at `path`, with these `entries`, from Kaggle's list; returns all its lines, oldest first.

    A submission is recognised as one of our `csvs` by the tag in its description, or by the file's name; `also` are
    further entries to recognise, such as a CSV that predict did not write.
    """
    known = [*also, *ledger.current(entries, competition)]
    by_ref = {entry.ref: entry for entry in known if entry.ref is not None}
    ours = [Entry.of(csv.sidecar) for csv in csvs]
    by_sha = {entry.csv_sha256: entry for entry in (*ours, *known) if entry.csv_sha256}
    lines = []
    for submission in sorted(listed, key=lambda item: item.ref):
        old = by_ref.get(submission.ref)
        # An unrecognised submission may be recognised now: its CSV may have arrived from another machine.
        entry = old if old and is_of(submission, old) else _recognised(submission, by_sha, csvs, competition)
        entry = updated(entry, submission)
        if old is None or any(getattr(old, name) != getattr(entry, name) for name in STATE):
            lines.append(entry)
    ledger.append(path, lines)
    return [*entries, *lines]


def is_of(submission: Submission, entry: Entry) -> bool:
    """Whether the submission belongs to `entry`: Kaggle may have named another in its place."""
    by_hand = entry.note == BY_HAND and bool(entry.run)
    return by_hand or (bool(entry.csv_sha256) and submissions.carries(submission.description, entry.csv_sha256))


def updated(entry: Entry, submission: Submission) -> Entry:
    """The ledger's next line for `entry`, with Kaggle's present data."""
    return replace(
        entry,
        time=instant(submission.date).isoformat(timespec="seconds"),
        ref=submission.ref,
        public=_per_cent(submission.public),
        private=_per_cent(submission.private),
        status=submission.status.lower(),
        note=printable(submission.error) or entry.note,
    )


def _recognised(submission: Submission, by_sha: Mapping[str, Entry], csvs: Sequence[LocalCsv], slug: str) -> Entry:
    for sha256, entry in by_sha.items():
        if submissions.carries(submission.description, sha256):
            return replace(entry, note="")  # the note was about another submission, or a refusal
    for csv in csvs:
        fits = (csv.path.name, csv.size) == (submission.file_name, submission.size)
        if fits and instant(csv.sidecar.created) - instant(submission.date) <= CLOCKS_DIFFER:
            return replace(Entry.of(csv.sidecar), note=BY_HAND)
    return Entry(competition=slug, note="not a CSV that is here")


def _per_cent(score: str) -> float | None:
    """Kaggle's "0.83439" as 83.439; None if it is unknown or no share."""
    with suppress(ValueError):
        if 0 <= (value := float(score)) <= 1:
            return round(100 * value, 3)
    return None


def instant(text: str) -> datetime:
    """An ISO time; without a zone, as Kaggle's, UTC.  Far in the past if it is not a time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
