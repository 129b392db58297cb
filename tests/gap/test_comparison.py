import dataclasses

import pytest

from pipeline.config import DEFAULT_COMPETITION, Competition, competition
from pipeline.gap.comparison import TEST_ROWS, compare
from pipeline.store.ledger import Entry

OURS = Entry("", "c", "run", "abc", 7, 94.3, 94.3, 83.439, 83.5, "complete")
FACTS = {"test": {"images": 10_000}, "hidden": {"images": 10_000}}


def test_the_papers_result_lies_on_the_published_line_and_is_no_luck() -> None:
    found = compare(competition(DEFAULT_COMPETITION), [OURS], [], FACTS).to_dict()
    assert found["gap"] == pytest.approx(10.861)
    assert found["line_expects"] == pytest.approx(83.14, abs=0.01)
    assert (found["public_rows"], found["rows_assumed"]) == (5012, False)
    assert found["noise"]["exceeds"]


def test_the_newest_score_of_ours_is_what_counts() -> None:
    older = dataclasses.replace(OURS, ref=6, public=80.0)
    stranger = dataclasses.replace(OURS, ref=9, run="", csv_sha256="", local_test=None, local_validation=None)
    pending = dataclasses.replace(OURS, ref=10, public=None, private=None, status="pending")
    assert compare(Competition("c"), [OURS, older, stranger, pending], [], FACTS).newest == OURS
    assert compare(Competition("c"), [stranger, pending], [], FACTS).newest == stranger
    assert compare(Competition("c"), [pending], [], FACTS).newest == pending
    assert compare(Competition("c"), [], [], FACTS).newest is None


def test_unknown_rows_are_half_of_the_hidden_set_or_unknown() -> None:
    assumed = compare(Competition("c"), [OURS], [], FACTS)
    assert (assumed.public_rows, assumed.rows_assumed) == (5000, True)
    nothing = compare(Competition("c"), [OURS], [], {})
    assert (nothing.public_rows, nothing.noise, nothing.line_expects) == (None, None, None)
    assert TEST_ROWS == 10_000
