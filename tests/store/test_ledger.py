import dataclasses
import multiprocessing
from pathlib import Path
from unittest import mock

import pytest

from pipeline.errors import BadData
from pipeline.store import ledger
from pipeline.store.ledger import Entry

ENTRY = Entry(
    time="2025-01-01T00:00:00+00:00", competition="c", run="run", csv_sha256="abc", ref=7, local_validation=94.3,
    local_test=94.1, public=83.439, status="complete", note="a note",
)  # fmt: skip
PREDICTION = dataclasses.replace(
    ENTRY, ref=None, public=None, status="predicted", predicted=83.25, predicted_low=-0.5, predicted_high=101.125
)
HEADER = ",".join(ledger.COLUMNS) + "\n"


def test_a_line_survives_the_file(tmp_path: Path) -> None:
    book = tmp_path / "deep" / "ledger.csv"
    pending = dataclasses.replace(ENTRY, ref=None, local_test=None, public=None, status="sending", note="")
    ledger.append(book, [pending])
    ledger.append(book, [ENTRY])
    assert ledger.read(book) == [pending, ENTRY]
    assert book.read_text().splitlines()[0].startswith("time,competition,run,csv_sha256,ref,local_validation")


def test_gaps_are_local_minus_score() -> None:
    assert ENTRY.gap_public == pytest.approx(10.661)
    assert ENTRY.gap_private is None
    assert ",10.661," in ledger.line(ENTRY)


@pytest.mark.parametrize("torn", [dataclasses.replace(ENTRY, note='bad row, "quoted"\nand more'), PREDICTION])
def test_a_line_torn_in_an_older_version_costs_no_other_line(tmp_path: Path, torn: Entry) -> None:
    """Where the last cell is a number, the first half of it is a number too."""
    book = tmp_path / "ledger.csv"
    assert ledger.read(book) == []
    ledger.append(book, [ENTRY])
    whole = len(book.read_bytes())
    ledger.append(book, [torn])
    content, first = book.read_bytes(), dataclasses.replace(ledger.read(book)[1], predicted_high=None)
    for end in (*range(whole, len(content) - 9, 5), *range(len(content) - 9, len(content))):
        # The length may be on disk and the content not.
        for rest in (b"", bytes(len(content) - end)):
            book.write_bytes(content[:end] + rest)
            found = ledger.read(book)
            known = [dataclasses.replace(entry, predicted_high=None) for entry in found]
            assert found == [ENTRY] or (known == [ENTRY, first] and end >= len(content) - 8 and not rest)
            ledger.append(book, [ENTRY])
            assert ledger.read(book) == [*found, ENTRY]


@pytest.mark.parametrize("old", [b"", ",".join(ledger.COLUMNS).encode(), f"{HEADER}{ledger.line(ENTRY)}".encode()[:-1]])
def test_an_append_that_is_interrupted_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes
) -> None:
    """Whether the ledger is empty, or an editor took the end of its last line."""
    book = tmp_path / "ledger.csv"
    book.write_bytes(old)
    before = ledger.read(book)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ledger.append(book, [ENTRY])
    assert book.read_bytes() == old
    ledger.append(book, [PREDICTION])
    assert ledger.read(book) == [*before, PREDICTION]


def test_a_ledger_that_a_spreadsheet_saved_keeps_its_predictions(tmp_path: Path) -> None:
    book, whole = tmp_path / "ledger.csv", dataclasses.replace(PREDICTION, predicted_high=94.12)
    ledger.append(book, [whole, ENTRY])
    book.write_text(book.read_text().replace("94.120", "94.12"))
    assert ledger.read(book) == [whole, ENTRY]
    book.write_text(ledger.line(whole).replace("94.120\n", "94.12").join([HEADER, ""]))  # without the last line's end
    assert ledger.read(book) == [whole]
    ledger.append(book, [ENTRY])
    assert ledger.read(book) == [whole, ENTRY]


def test_a_note_stays_one_cell(tmp_path: Path) -> None:
    ledger.append(tmp_path / "ledger.csv", [dataclasses.replace(ENTRY, note='a, "b"\nc')])
    assert ledger.read(tmp_path / "ledger.csv")[0].note == "a; 'b'\\nc"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("time,", "when,", "line 1"),
        *((",83.439,", f",{cell},", "line 2") for cell in ("eighty", "inf", "nan", "1e308")),
        (",7,", ",seven,", "line 2"),
    ],
)
def test_a_hand_edited_line_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    book = tmp_path / "ledger.csv"
    ledger.append(book, [ENTRY])
    book.write_text(book.read_text().replace(old, new))
    with pytest.raises(BadData, match=said):
        ledger.read(book)


def test_the_newest_line_of_a_submission_is_its_state() -> None:
    sending = dataclasses.replace(ENTRY, ref=None, status="sending")
    pending = dataclasses.replace(ENTRY, status="pending", public=None)
    other = dataclasses.replace(ENTRY, ref=8, csv_sha256="def")
    elsewhere = dataclasses.replace(ENTRY, competition="d")
    assert ledger.current([PREDICTION, sending], "c") == [sending]
    assert ledger.current([sending, pending, other, elsewhere, ENTRY], "c") == [ENTRY, other]


def test_the_newest_prediction_of_a_csv_counts_and_none_after_its_score() -> None:
    second = dataclasses.replace(PREDICTION, predicted=91.0)
    assert ledger.predictions([PREDICTION, second, ENTRY, PREDICTION], "c") == {ENTRY.csv_sha256: second}
    assert ledger.predictions([ENTRY, PREDICTION], "c") == ledger.predictions([PREDICTION], "d") == {}


def _append_many(book: Path, ref: int) -> None:
    for _ in range(25):
        ledger.append(book, [dataclasses.replace(ENTRY, ref=ref)])


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    book = tmp_path / "ledger.csv"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(book, ref)) for ref in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(e.ref or 0 for e in ledger.read(book)) == [1] * 25 + [2] * 25
