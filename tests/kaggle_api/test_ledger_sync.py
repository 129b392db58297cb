import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.kaggle_api.client import Submission
from pipeline.kaggle_api.ledger_sync import BY_HAND, sync
from pipeline.store import ledger, submission_format, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord
from pipeline.store.submissions import Sidecar

SENT = "2025-03-01T12:00:00"  # Kaggle's times carry no zone and mean UTC


def write_csv(folder: Path, name: str = "sub.csv", label: int = 1, created: str = "2025-03-01T11:00:00+00:00") -> Path:
    folder.mkdir(exist_ok=True)
    csv = folder / name
    submission_format.write(csv, np.arange(5), np.full(5, label))
    sha = FileRecord.of(csv).sha256
    Sidecar("c", f"run{label}", sha, 5, "w", "d", 94.3, "split", 94.1, created, {}).write(csv)
    return csv


def listed(
    ref: int, name: str = "other.csv", description: str = "", size: int = 0, public: str = "0.83439"
) -> Submission:
    return Submission(ref, SENT, description, name, size, "COMPLETE", public, "", "")


def news(folder: Path, *sent: Submission, known: Sequence[Entry] = ()) -> list[Entry]:
    """The lines that are new in the ledger."""
    path = folder / "ledger.csv"
    path.unlink(missing_ok=True)
    lines = sync(path, known, sent, submissions.local_csvs(folder, "c"), "c")
    assert lines[: len(known)] == list(known) and ledger.read(path) == lines[len(known) :]
    return ledger.read(path)


def test_our_tag_is_recognised_whatever_the_files_name(tmp_path: Path) -> None:
    sha = FileRecord.of(write_csv(tmp_path)).sha256
    (entry,) = news(tmp_path, listed(5, description=submissions.tag("run1", sha, 94.3)))
    assert (entry.ref, entry.run, entry.csv_sha256, entry.local_test) == (5, "run1", sha, 94.1)
    assert (entry.public, entry.private, entry.status, entry.note) == (83.439, None, "complete", "")
    assert entry.time == "2025-03-01T12:00:00+00:00"


@pytest.mark.parametrize("score", ["", "nan", "-12.5", "83.44", "1.1", "1.000001", "1e999", "9" * 400, "none", "True"])
def test_a_score_that_is_no_share_is_unknown(tmp_path: Path, score: str) -> None:
    (entry,) = news(tmp_path, listed(5, public=score))
    assert entry.public is None


def test_a_ref_that_kaggle_named_wrongly_is_given_back(tmp_path: Path) -> None:
    sha = FileRecord.of(write_csv(tmp_path)).sha256
    wrong = Entry(time=SENT, competition="c", run="run1", csv_sha256=sha, ref=77, status=ledger.PENDING)
    ours = listed(5, description=submissions.tag("run1", sha, 94.3))
    lines = news(tmp_path, ours, listed(77, description="a teammate's"), known=[wrong])
    assert [(entry.ref, entry.run, entry.csv_sha256) for entry in lines] == [(5, "run1", sha), (77, "", "")]


@pytest.mark.parametrize(
    ("created", "date", "longer", "run"),
    [
        ("2025-03-01T11:00:00+00:00", SENT, 0, "run1"),
        # Clocks may differ by a minute; what was made later is another one.
        ("2025-03-01T13:00:50+01:00", SENT, 0, "run1"),
        ("2025-03-01T12:02:00+00:00", SENT, 0, ""),
        # A date that nobody means is a date.
        ("2025-03-01T11:00:00+00:00", "0001-01-01T00:00:00Z", 0, ""),
        ("2025-03-01T11:00:00+00:00", "soon", 0, ""),
        ("2025-03-01T11:00:00+00:00", SENT, 1, ""),
    ],
)
def test_a_submission_by_hand_is_recognised_by_name_size_and_time(
    tmp_path: Path, created: str, date: str, longer: int, run: str
) -> None:
    size = write_csv(tmp_path, created=created).stat().st_size + longer
    (entry,) = news(tmp_path, dataclasses.replace(listed(5, "sub.csv", "hello", size), date=date))
    assert (entry.run, entry.note) == (run, BY_HAND if run else "not a CSV that is here")


def test_an_edited_csv_is_not_claimed(tmp_path: Path) -> None:
    write_csv(tmp_path, "edited.csv", 2).write_text("ID,Labels\n")
    (entry,) = news(tmp_path, listed(2, "edited.csv", "", 10))
    assert (entry.ref, entry.run, entry.local_test) == (2, "", None)


def test_only_news_are_news(tmp_path: Path) -> None:
    (pending,) = news(tmp_path, dataclasses.replace(listed(5, public=""), status="PENDING"))
    assert (pending.public, pending.status) == (None, "pending")
    (scored,) = news(tmp_path, listed(5), known=[pending])
    assert scored.public == 83.439
    failed = dataclasses.replace(listed(5, public=""), status="ERROR", error="\x1b[31m rows")
    assert [entry.note for entry in news(tmp_path, failed, known=[pending])] == ["\\x1b[31m rows"]
    assert sync(tmp_path / "ledger.csv", [pending, scored], [listed(5)], [], "c") == [pending, scored]


def test_what_was_not_recognised_may_be_later(tmp_path: Path) -> None:
    submission = listed(5, "sub.csv", "", write_csv(tmp_path / "later").stat().st_size)
    (stranger,) = news(tmp_path, submission)
    (entry,) = news(tmp_path / "later", submission, known=[stranger])
    assert (stranger.run, entry.run) == ("", "run1")


def test_a_line_that_was_sent_or_refused_becomes_the_submission(tmp_path: Path) -> None:
    sending = Entry(competition="c", run="run9", csv_sha256="f" * 64, local_test=89.0, status="sending")
    refused = dataclasses.replace(sending, status="error", note="Kaggle refused")
    for known in ([sending], [sending, refused]):
        (entry,) = news(tmp_path, listed(5, description=submissions.tag("run9", "f" * 64, 90.0)), known=known)
        assert (entry.ref, entry.run, entry.local_test, entry.note) == (5, "run9", 89.0, "")


def test_a_csv_that_predict_did_not_write_is_recognised_if_it_is_named(tmp_path: Path) -> None:
    sent = listed(5, description=submissions.tag("unknown", "f" * 64, None))
    also = [Entry(competition="c", csv_sha256="f" * 64)]
    (entry,) = sync(tmp_path / "ledger.csv", [], [sent], [], "c", also)
    assert (entry.ref, entry.csv_sha256) == (5, "f" * 64)
