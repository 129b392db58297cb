import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.gap import comparison
from pipeline.kaggle_api.client import Submission
from pipeline.store import submission_format, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord
from pipeline.store.submissions import Sidecar

SENT = "2025-03-01T12:00:00"  # Kaggle's times carry no zone and mean UTC


def write_csv(folder: Path, name: str, label: int, created: str = "2025-03-01T11:00:00+00:00") -> Path:
    folder.mkdir(exist_ok=True)
    csv = folder / name
    submission_format.write(csv, [(np.arange(5), np.full(5, label))])
    sha = FileRecord.of(csv).sha256
    Sidecar("c", f"run{label}", sha, 5, "w", "d", 94.3, "split", 94.1, created, {}).write(csv)
    return csv


def listed(
    ref: int, name: str = "other.csv", description: str = "", size: int = 0, public: str = "0.83439"
) -> Submission:
    return Submission(ref, SENT, description, name, size, "COMPLETE", public, "", "")


def news(folder: Path, *sent: Submission, known: tuple[Entry, ...] = ()) -> list[Entry]:
    return comparison.news(known, sent, submissions.local_csvs(folder, "c"), "c")


def test_our_tag_is_recognised_whatever_the_files_name(tmp_path: Path) -> None:
    csv = write_csv(tmp_path, "sub.csv", 1)
    sha = FileRecord.of(csv).sha256
    (entry,) = news(tmp_path, listed(5, description=submissions.tag("run1", sha, 94.3)))
    assert (entry.ref, entry.run, entry.csv_sha256, entry.local_test) == (5, "run1", sha, 94.1)
    assert (entry.public, entry.private, entry.status, entry.note) == (83.439, None, "complete", "")


def test_a_submission_by_hand_is_recognised_by_name_size_and_time(tmp_path: Path) -> None:
    csv = write_csv(tmp_path, "sub.csv", 1)
    size = csv.stat().st_size
    (entry,) = news(tmp_path, listed(5, "sub.csv", "hello", size))
    assert (entry.run, entry.note) == ("run1", comparison.BY_HAND)
    assert news(tmp_path, listed(6, "sub.csv", "hello", size))[0].run == "run1"


@pytest.mark.parametrize(
    ("date", "run"), [("9999-12-31T23:59:59Z", "run1"), ("0001-01-01T00:00:00Z", ""), ("soon", "")]
)
def test_a_date_that_nobody_means_is_a_date(tmp_path: Path, date: str, run: str) -> None:
    csv = write_csv(tmp_path, "sub.csv", 1)
    odd = dataclasses.replace(listed(5, "sub.csv", "", csv.stat().st_size), date=date)
    assert news(tmp_path, odd)[0].run == run


@pytest.mark.parametrize(
    ("created", "run"),
    [("2025-03-01T12:09:00+00:00", "run1"), ("2025-03-01T13:09:00+01:00", "run1"), ("2025-03-01T12:11:00+00:00", "")],
)
def test_clocks_may_differ_by_ten_minutes(tmp_path: Path, created: str, run: str) -> None:
    csv = write_csv(tmp_path, "sub.csv", 1, created)
    assert news(tmp_path, listed(5, "sub.csv", "", csv.stat().st_size))[0].run == run


def test_what_cannot_be_ours_is_not_claimed(tmp_path: Path) -> None:
    csv = write_csv(tmp_path, "sub.csv", 1, created="2025-03-01T12:30:00+00:00")  # written after it was sent
    write_csv(tmp_path, "edited.csv", 2).write_text("ID,Labels\n")
    size = csv.stat().st_size
    entries = news(
        tmp_path, listed(1, "sub.csv", "", size), listed(2, "edited.csv"), listed(3, "sub.csv", "", size + 1)
    )
    assert [(entry.ref, entry.run, entry.local_test) for entry in entries] == [
        (1, "", None),
        (2, "", None),
        (3, "", None),
    ]


def test_only_news_are_news(tmp_path: Path) -> None:
    (pending,) = news(tmp_path, dataclasses.replace(listed(5, public=""), status="PENDING"))
    assert (pending.public, pending.status) == (None, "pending")
    (scored,) = news(tmp_path, listed(5), known=(pending,))
    assert scored.public == 83.439
    assert news(tmp_path, listed(5), known=(scored,)) == []


def test_what_was_not_recognised_may_be_later(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "later", "sub.csv", 1)
    submission = listed(5, "sub.csv", "", csv.stat().st_size)
    (stranger,) = news(tmp_path, submission)
    (entry,) = news(tmp_path / "later", submission, known=(stranger,))
    assert (stranger.run, entry.run) == ("", "run1")
    assert news(tmp_path / "later", submission, known=(entry,)) == []


def test_the_time_is_when_it_was_submitted(tmp_path: Path) -> None:
    assert news(tmp_path, listed(5))[0].time == "2025-03-01T12:00:00+00:00"


def test_a_line_about_to_be_sent_becomes_the_submission(tmp_path: Path) -> None:
    sending = Entry("", "c", "run9", "f" * 64, None, 90.0, 89.0, None, None, "sending")
    (entry,) = news(tmp_path, listed(5, description=submissions.tag("run9", "f" * 64, 90.0)), known=(sending,))
    assert (entry.ref, entry.run, entry.local_test) == (5, "run9", 89.0)


def test_kaggles_text_is_made_printable(tmp_path: Path) -> None:
    failed = dataclasses.replace(listed(5, public=""), status="ERROR", error="bad\x1b[2J\nrow")
    (entry,) = news(tmp_path, failed)
    assert entry.note == "bad\\x1b[2J\\nrow"
