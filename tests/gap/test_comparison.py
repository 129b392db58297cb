import dataclasses

import pytest

from pipeline.config import DEFAULT_COMPETITION, Competition, competition
from pipeline.gap.comparison import HOLDOUT_ROWS, compare, noise
from pipeline.store.ledger import Entry

OURS = Entry(competition="c", run="run", csv_sha256="abc", ref=7, local_test=94.3, public=83.439, status="complete")
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
    stranger = dataclasses.replace(OURS, ref=9, run="", csv_sha256="", local_test=None)
    pending = dataclasses.replace(OURS, ref=10, public=None, status="pending")
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
    assert HOLDOUT_ROWS == 10_000


def test_noise_by_hand() -> None:
    # pooled p = (90 + 40) / 150 = 13/15; variance = p q (1/100 + 1/50) = (26/225) (3/100)
    found = noise(90.0, 100, 80.0, 50)
    assert found.sigma == pytest.approx(100 * (26 / 225 * 3 / 100) ** 0.5, abs=1e-3)
    assert found.limit == pytest.approx(1.959964 * found.sigma, abs=2e-3) and not found.exceeds
    # The paper's gap is no luck.
    assert noise(94.3, 10_000, 83.439, 5012).exceeds and not noise(94.3, 10_000, 94.0, 5012).exceeds
