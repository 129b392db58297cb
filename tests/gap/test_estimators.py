"""Each estimator on a small case that is computed by hand."""

import numpy as np
import pytest

from pipeline.gap import estimators
from pipeline.gap.estimators import Answers, probit


def two(*first: float) -> Answers:
    """Answers of two classes from the probabilities of the first."""
    return Answers(np.array([[p, 1 - p] for p in first]))


def test_atc_counts_what_is_as_sure_as_the_surest_part_of_the_right_size() -> None:
    local = two(0.6, 0.7, 0.8, 0.9)
    # Three of four are right, so the threshold lies at the second least sure: .7
    assert estimators.atc(local, 0.75, two(0.65, 0.7, 0.75, 0.2, 0.95)) == pytest.approx(4 / 5)
    assert estimators.atc(local, 0.75, local) == 0.75
    assert estimators.atc(local, 0.0, local) == 0
    assert estimators.atc(local, 1.0, two(0.55, 0.6)) == 0.5


def test_the_agreement_line_carries_over_to_accuracy() -> None:
    local = [np.zeros(1000, dtype=np.int64) for _ in range(3)]
    hidden = [np.zeros(1000, dtype=np.int64) for _ in range(3)]
    local[0][:100], local[1][200:250], local[2][300:310] = 1, 1, 1  # they disagree on 150, 110 and 60
    hidden[0][:200], hidden[1][200:320], hidden[2][400:430] = 1, 1, 1  # on 320, 230 and 150
    line = estimators.aline(local, hidden)
    x = np.array([probit(0.85), probit(0.89), probit(0.94)])
    y = np.array([probit(0.68), probit(0.77), probit(0.85)])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert line.pairs == 3 and line.slope == pytest.approx(slope)
    assert line.intercept == pytest.approx(y.mean() - slope * x.mean())
    assert line.r2 > 0.9 and line.refusal(0.9) is None
    # The best pair agrees on 94 %: half a probit further is 98 %.
    assert line.refusal(0.979) is None and "more than 94 %" in (line.refusal(0.981) or "")
    assert probit(line.accuracy(0.9)) == pytest.approx(line.intercept + slope * probit(0.9))


def test_a_line_that_is_none_is_refused() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 10, 300) for _ in range(4)]
    shuffled = [rng.integers(0, 10, 300) for _ in range(4)]
    assert "lie on no line" in (estimators.aline(labels, shuffled).refusal(0.5) or "")
    assert "only 1 usable pairs" in (estimators.aline(labels[:2], shuffled[:2]).refusal(0.5) or "")
    assert "only 0 usable pairs" in (estimators.aline(labels[:1] * 3, shuffled[:1] * 3).refusal(0.5) or "")


def test_one_score_gives_the_published_ones() -> None:
    """The competition's clean pairs: 94.5 -> 83.4 foretells 95.32 -> 84.97, 95.49 -> 85.10 and 97.09 -> 88.91."""
    for local, public in ((95.32, 84.97), (95.49, 85.10), (97.09, 88.91)):
        assert 100 * estimators.probit_line([(0.945, 0.834)], local / 100) == pytest.approx(public, abs=0.5)


def test_a_slope_is_fitted_to_five_scores_and_not_to_four() -> None:
    inside = estimators.probit_inverse
    anchors = [(inside(x), inside(0.5 * x - 0.2)) for x in (0.5, 1.0, 1.5, 1.75, 2.0)]
    assert probit(estimators.probit_line(anchors, inside(1.2))) == pytest.approx(0.5 * 1.2 - 0.2)
    x, y = np.array([[probit(value) for value in anchor] for anchor in anchors[:4]]).T
    assert probit(estimators.probit_line(anchors[:4], inside(1.2))) == pytest.approx((y - 0.85 * x).mean() + 0.85 * 1.2)
    assert estimators.probit_line([(0.9, 0.8)] * 5, 0.9) == pytest.approx(0.8)
