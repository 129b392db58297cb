import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DEFAULT_COMPETITION, Competition, competition
from pipeline.gap.comparison import BY_HAND, TEST_ROWS, compare, noise, sync
from pipeline.kaggle_api.client import Submission
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


@pytest.mark.parametrize(
    ("created", "date", "longer", "run"),
    [
        ("2025-03-01T11:00:00+00:00", SENT, 0, "run1"),
        # Clocks may differ by ten minutes.
        ("2025-03-01T13:09:00+01:00", SENT, 0, "run1"),
        ("2025-03-01T12:11:00+00:00", SENT, 0, ""),
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


def test_a_line_about_to_be_sent_becomes_the_submission(tmp_path: Path) -> None:
    sending = Entry("", "c", "run9", "f" * 64, None, 90.0, 89.0, None, None, "sending")
    (entry,) = news(tmp_path, listed(5, description=submissions.tag("run9", "f" * 64, 90.0)), known=[sending])
    assert (entry.ref, entry.run, entry.local_test) == (5, "run9", 89.0)


def test_a_csv_that_predict_did_not_write_is_recognised_if_it_is_named(tmp_path: Path) -> None:
    draft = Entry("", "c", "", "f" * 64, None, None, None, None, None, "")
    sent = listed(5, description=submissions.tag("unknown", "f" * 64, None))
    (entry,) = sync(tmp_path / "ledger.csv", [], [sent], [], "c", also=[draft])
    assert (entry.ref, entry.csv_sha256) == (5, "f" * 64)


# --- the gap

OURS = Entry("", "c", "run", "abc", 7, 94.3, 94.3, 83.439, 83.5, "complete")
FACTS = {"test": {"images": 10_000}, "hidden": {"images": 10_000}}


def test_the_papers_result_lies_on_the_published_line_and_is_no_luck() -> None:
    published = competition(DEFAULT_COMPETITION)
    found = compare(published, [dataclasses.replace(OURS, competition=DEFAULT_COMPETITION)], [], FACTS).to_dict()
    assert found["gap"] == pytest.approx(10.861)
    assert found["line_expects"] == pytest.approx(83.14, abs=0.01)
    assert (found["public_rows"], found["rows_assumed"]) == (5012, False)
    assert found["noise"]["exceeds"]


def test_the_newest_score_of_ours_is_what_counts() -> None:
    older = dataclasses.replace(OURS, ref=6, public=80.0)
    stranger = dataclasses.replace(OURS, ref=9, run="", csv_sha256="", local_test=None, local_validation=None)
    pending = dataclasses.replace(OURS, ref=10, public=None, private=None, status="pending")
    everything = [OURS, older, stranger, pending]
    for known, newest in ((everything, OURS), ([stranger, pending], stranger), ([pending], pending), ([], None)):
        assert compare(Competition("c"), known, [], FACTS).newest == newest
    other = dataclasses.replace(OURS, ref=3, csv_sha256="def")
    assert compare(Competition("c"), [*everything, other], [], FACTS, only="def").newest == other


def test_unknown_rows_are_half_of_the_test_set_or_unknown() -> None:
    assumed = compare(Competition("c"), [OURS], [], FACTS).to_dict()
    assert (assumed["public_rows"], assumed["rows_assumed"]) == (5000, True)
    nothing = compare(Competition("c"), [OURS], [], {})
    assert (nothing.public_rows, nothing.noise, nothing.line_expects) == (None, None, None)
    assert TEST_ROWS == 10_000


def test_noise_by_hand() -> None:
    # pooled p = (90 + 40) / 150 = 13/15; variance = p q (1/100 + 1/50) = (26/225) (3/100)
    found = noise(90.0, 100, 80.0, 50)
    assert found.sigma == pytest.approx(100 * (26 / 225 * 3 / 100) ** 0.5, abs=1e-3)
    assert found.limit == pytest.approx(1.959964 * found.sigma, abs=2e-3) and not found.exceeds
    # The paper's gap is no luck.
    assert noise(94.3, 10_000, 83.439, 5012).exceeds and not noise(94.3, 10_000, 94.0, 5012).exceeds
