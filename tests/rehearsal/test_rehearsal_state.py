"""What the mock server remembers, and how it scores."""

import json
from pathlib import Path

import pytest

from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.rehearsal.state import Outcome, Refusal, State, Truth, score
from tests.support import send

DAY = 86_400.0
START = 20_000 * DAY  # 2024-10-04


def csv(labels: dict[int, int]) -> bytes:
    return ("ID,Labels\n" + "".join(f"{i},{y}\n" for i, y in labels.items())).encode()


TRUTH = Truth({i: i % 10 for i in range(100)}, frozenset(range(50)))


def open_state(folder: Path, now: float = START, daily_limit: int = 20) -> State:
    state = State(folder, "rehearsal-x", "files")
    state.truth, state.daily_limit, state.clock = TRUTH, daily_limit, lambda: now
    return state


def test_public_and_private_are_halves_cut_to_five_decimals(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(csv(TRUTH.labels))
    truth = Truth.read(tmp_path / "labels.csv")
    assert len(truth.public) == 50
    assert truth == Truth.read(tmp_path / "labels.csv")
    three = Truth({0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}, frozenset({0, 1, 2}))
    assert score(csv({**three.labels, 0: 9}), three) == Outcome("COMPLETE", "0.66666", "1.00000")
    content = "Labels,ID\r\n" + "".join(f"{i % 10},{i}\r\n" for i in reversed(range(100)))
    assert score(content.encode(), TRUTH).public == "1.00000"
    assert score(b"ID,Labels\n5,1\n", None) == Outcome("COMPLETE", "", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Line 0 of the CSV is invalid"),
        (b"ID,Label\n0,1\n", "Line 1 of the CSV is invalid: expected the header ID,Labels, then each id once"),
        (b"ID,Labels\n0\n", "Line 2 of the CSV"),
        (b"ID,Labels\n0,10\n", "Line 2 of the CSV"),
        (b"ID,Labels\n0,1\n0,1\n", "Line 3 of the CSV"),
        (csv(dict.fromkeys(range(90), 0)), "Unable to find 10 required key values in the 'ID' column"),
        (csv(dict.fromkeys(range(101), 0)), "The key value '100' in the 'ID' column is unexpected"),
        (b"PK\x03\x04\xff\xfe", "Line 1 of the CSV"),
    ],
)
def test_what_cannot_be_scored(content: bytes, reason: str) -> None:
    outcome = score(content, TRUTH)
    assert (outcome.status, outcome.public, outcome.private) == ("ERROR", "", "")
    assert reason in outcome.error


def test_labels_that_are_missing_or_bad(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        Truth.read(tmp_path / "no.csv")
    (tmp_path / "bad.csv").write_text("a,b\n")
    with pytest.raises(BadData, match="header ID,Labels"):
        Truth.read(tmp_path / "bad.csv")


def test_pending_then_complete_and_remembered(tmp_path: Path) -> None:
    ref = send(open_state(tmp_path), csv(TRUTH.labels), description="one")
    (shown,) = open_state(tmp_path).submissions()
    assert (shown["ref"], shown["status"], shown["publicScore"]) == (ref, "PENDING", "")
    again = open_state(tmp_path, START + 1.5)
    (shown,) = again.submissions()
    assert (shown["status"], shown["publicScore"], shown["privateScore"]) == ("COMPLETE", "1.00000", "1.00000")
    assert (shown["description"], shown["date"]) == ("one", "2024-10-04T00:00:00.000Z")
    assert send(again, b"ID\n") == ref + 1
    assert [item["ref"] for item in again.submissions()] == [ref + 1, ref]


def test_daily_limit_ends_at_midnight_utc(tmp_path: Path) -> None:
    state = open_state(tmp_path, daily_limit=2)
    for _ in range(2):
        send(state, csv(TRUTH.labels))
    assert state.limits() == (2, 2, 0)
    with pytest.raises(Refusal, match=r"daily Submission allowance \(2\) today"):
        send(open_state(tmp_path, START + DAY - 1, daily_limit=2), csv(TRUTH.labels))
    state = open_state(tmp_path, START + DAY, daily_limit=2)
    assert state.limits() == (0, 2, 2)
    send(state, csv(TRUTH.labels))


def test_uploads_are_checked_and_serve_once(tmp_path: Path) -> None:
    state = open_state(tmp_path)
    with pytest.raises(Refusal, match="not announced"):
        state.store_upload("../../etc", b"")
    token = state.start_upload("sub.csv", 5)
    with pytest.raises(Refusal, match="was not uploaded"):
        state.submit(token, "")
    with pytest.raises(Refusal, match="3 bytes came, 5 were announced"):
        state.store_upload(token, b"abc")
    state.store_upload(token, b"abcde")
    state.submit(token, "")
    with pytest.raises(Refusal, match="was not uploaded"):
        state.submit(token, "")


def test_another_competition_or_a_damaged_memory_is_refused(tmp_path: Path) -> None:
    open_state(tmp_path)
    with pytest.raises(UsageError, match=r"with the files of files, not .*: rename the folder that is served"):
        State(tmp_path, "rehearsal-x", "others")
    with pytest.raises(UsageError, match=r"not rehearsal-y .*: use another --state"):
        State(tmp_path, "rehearsal-y", "files")
    for damage in ("{", json.dumps([1]), json.dumps({"slug": "rehearsal-x"})):
        (tmp_path / "state.json").write_text(damage)
        with pytest.raises(BadData, match=r"damaged .*: start over with rm -r"):
            open_state(tmp_path)
