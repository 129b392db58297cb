"""Which of Kaggle's submissions is which of our CSVs: by ref, by our tag, by the file's name.

Kaggle does not say what was in a submission, so one that was sent by hand, without our tag, is recognised
by its file name and size, if just one of our CSVs fits that was written before it was sent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.errors import BadData, printable
from pipeline.gap import ledger
from pipeline.gap.ledger import Entry
from pipeline.kaggle_api.client import Kaggle, Submission
from pipeline.store import sidecar
from pipeline.store.manifest import FileRecord
from pipeline.store.sidecar import Sidecar

BY_HAND = "submitted by hand; recognised by its file name"
CLOCKS_DIFFER = timedelta(minutes=10)  # at most, this machine's and Kaggle's


@dataclass(frozen=True)
class LocalCsv:
    """A CSV of ours that is still what its sidecar says."""

    path: Path
    size: int  # bytes
    sidecar: Sidecar


def local_csvs(folder: Path, competition: str) -> list[LocalCsv]:
    """The CSVs in `folder` that predict wrote for `competition` and nobody changed since."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        try:
            known = Sidecar.read(path)
        except BadData:
            continue  # predict and submit complain about it; here it only cannot be recognised
        if known is None or known.competition != competition:
            continue
        record = FileRecord.of(path)
        if known.csv_sha256 == record.sha256:
            found.append(LocalCsv(path, record.size, known))
    return found


def local_csv(path: Path, competition: str) -> LocalCsv:
    """The CSV at `path`.

    Raises:
        MissingInput: it is not there.
        BadData: predict did not write it for `competition`, or it was edited since.
    """
    known, record = sidecar.written_by_predict(path, competition)
    return LocalCsv(path, record.size, known)


def sync(book: Path, competition: str, kaggle: Kaggle, also: Sequence[Entry] = ()) -> list[Entry]:
    """Bring the ledger `book` up to Kaggle's list; the states of all submissions to `competition`.

    `also` is recognised besides what the ledger and the folder know: a CSV that predict did not write.

    Raises:
        NetworkError, AccessDenied: Kaggle did not answer.
        BadData: the ledger is damaged.
    """
    entries = ledger.read(book)
    known = [*also, *ledger.current(entries, competition)]
    lines = news(known, kaggle.submissions(competition), local_csvs(book.parent, competition), competition)
    ledger.append(book, lines)
    return ledger.current([*entries, *lines], competition)


def news(
    known: Iterable[Entry], listed: Iterable[Submission], csvs: Sequence[LocalCsv], competition: str
) -> list[Entry]:
    """The lines to append to the ledger, so that it knows all that Kaggle lists; oldest first.

    Args:
        known: the current states from the ledger.
        listed: Kaggle's list.
        csvs: what can be recognised.
    """
    by_ref = {entry.ref: entry for entry in known if entry.ref is not None}
    by_sha = {entry.csv_sha256: entry for entry in known if entry.csv_sha256}
    lines = []
    for submission in sorted(listed, key=lambda item: item.ref):
        old = by_ref.get(submission.ref)
        # What was not recognised may be by now: its CSV may have come from another machine meanwhile.
        entry = updated(old if old and old.run else _recognise(submission, by_sha, csvs, competition), submission)
        if old is None or _state(old) != _state(entry):
            lines.append(entry)
    return lines


def updated(entry: Entry, submission: Submission) -> Entry:
    """The ledger's next line for `entry`, with what Kaggle says of it now."""
    return Entry(
        time=instant(submission.date).isoformat(timespec="seconds"),
        competition=entry.competition,
        run=entry.run,
        csv_sha256=entry.csv_sha256,
        ref=submission.ref,
        local_validation=entry.local_validation,
        local_test=entry.local_test,
        public=_per_cent(submission.public),
        private=_per_cent(submission.private),
        status=submission.status.lower(),
        note=printable(submission.error) or (entry.note if entry.status != ledger.SENDING else ""),
    )


def _recognise(submission: Submission, by_sha: dict[str, Entry], csvs: Sequence[LocalCsv], competition: str) -> Entry:
    for sha256, entry in by_sha.items():
        if sidecar.carries(submission.description, sha256):
            return entry
    for csv in csvs:
        if sidecar.carries(submission.description, csv.sidecar.csv_sha256):
            return _entry(csv, competition, "")
    fitting = [
        csv
        for csv in csvs
        if csv.path.name == submission.file_name
        and csv.size == submission.size
        and instant(csv.sidecar.created) - instant(submission.date) <= CLOCKS_DIFFER
    ]
    if len(fitting) == 1:
        return _entry(fitting[0], competition, BY_HAND)
    return Entry("", competition, "", "", None, None, None, None, None, "", "not a CSV that is here")


def _entry(csv: LocalCsv, competition: str, note: str) -> Entry:
    card = csv.sidecar
    local = card.validation_accuracy, card.test_accuracy
    return Entry("", competition, card.run, card.csv_sha256, None, *local, None, None, "", note)


def _state(entry: Entry) -> tuple[object, ...]:
    return entry.status, entry.public, entry.private, entry.run


def _per_cent(score: str) -> float | None:
    """Kaggle's "0.83439" as 83.439; None while it is unknown."""
    try:
        return round(100 * float(score), 3)
    except ValueError:
        return None


def instant(text: str) -> datetime:
    """An ISO time; Kaggle's carries no zone and means UTC.  What is no time lies far in the past."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
