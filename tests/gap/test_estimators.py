"""Each estimator on a small case that is computed by hand."""

import re
from typing import Any

import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.gap import estimators
from pipeline.gap.estimators import Refused, at_temperature, checked, negative_entropy, probit
from pipeline.store.submissions import Outputs, accuracy
from tests.gap.cases import PAIRS, two


@pytest.mark.parametrize("broken", [[[np.nan, 1.0]], [[-0.1, 1.1]], [[0.4, 0.4]], [0.5, 0.5], np.empty((0, 2))])
def test_what_are_not_probabilities_is_refused(broken: object) -> None:
    with pytest.raises(BadData, match="test set"):
        checked(np.array(broken), "test set")
    rounded = np.random.default_rng(0).dirichlet([1] * 10, size=50).astype(np.float32)
    np.testing.assert_allclose(checked(rounded, "hidden").sum(axis=1), 1, atol=1e-15)


def test_a_temperature_divides_the_logits() -> None:
    one = np.array([[0.5, 0.3, 0.2]])
    roots = one**0.5  # softmax(log p / 2)
    np.testing.assert_allclose(at_temperature(one, 2.0), roots / roots.sum())


def temperature(test: Outputs, validation: Outputs | None) -> float:
    return estimators.calibrated(test, validation, test)[0]


def test_the_temperature_is_found_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([0.5] * 5, size=20_000)
    labels = np.array([rng.choice(5, p=row) for row in honest]).astype(np.uint8)
    overconfident = at_temperature(honest, 1 / 3)
    calibrated, distorted = (Outputs(p.astype(np.float32), labels[None], labels) for p in (honest, overconfident))
    assert temperature(distorted, None) == pytest.approx(3, rel=0.05)
    assert temperature(distorted, calibrated) == pytest.approx(1, rel=0.05)  # the validation split decides
    assert accuracy(overconfident.argmax(1), labels) == accuracy(honest.argmax(1), labels)


def test_certainty_has_an_entropy_and_a_loss() -> None:
    certain = np.array([[1.0, 0.0]])
    assert negative_entropy(certain).tolist() == [0]
    wrong = Outputs(certain.astype(np.float32), np.ones((1, 1), np.uint8), np.ones(1, np.uint8))
    assert temperature(wrong, None) == pytest.approx(20, rel=0.01)  # log 0 would be no number


def test_atc_counts_what_is_as_confident_as_the_share_that_is_right() -> None:
    holdout = two(0.6, 0.7, 0.8, 0.9)
    # Three of four are right, so the threshold lies at the second least confident: .7
    assert estimators.atc(holdout, 0.75, two(0.65, 0.7, 0.75, 0.2, 0.95)) == pytest.approx(4 / 5)
    assert estimators.atc(holdout, 0.75, holdout) == 0.75
    assert estimators.atc(holdout, 0.0, holdout) == 0
    assert estimators.atc(holdout, 1.0, two(0.55, 0.6)) == 0.5
    # The margin counts, .05 here, and neither the confidence nor the entropy.
    for hidden, share in (([0.4, 0.3, 0.3], 1), ([0.5, 0.48, 0.02], 0)):
        assert estimators.atc(np.array([[0.45, 0.4, 0.15]]), 1.0, np.array([hidden])) == share


def test_the_agreement_line_carries_over_to_accuracy() -> None:
    models = [(np.zeros(1000, dtype=np.int64), np.zeros(1000, dtype=np.int64)) for _ in range(3)]
    holdout, hidden = zip(*models, strict=True)
    holdout[0][:100], holdout[1][200:250], holdout[2][300:310] = 1, 1, 1  # they disagree on 150, 110 and 60
    hidden[0][:200], hidden[1][200:320], hidden[2][400:430] = 1, 1, 1  # on 320, 230 and 150
    x = np.array([probit(0.85), probit(0.89), probit(0.94)])
    y = np.array([probit(0.68), probit(0.77), probit(0.85)])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert probit(estimators.aline(models, 0.9)) == pytest.approx(y.mean() + slope * (probit(0.9) - x.mean()))
    # The best pair agrees on 94 %: half a probit further is 98 %.
    assert estimators.aline(models, 0.979) > 0.9
    with pytest.raises(Refused, match="more than 94%"):
        estimators.aline(models, 0.981)


RNG = np.random.default_rng(0)
RANDOM = [(RNG.integers(0, 10, 300), RNG.integers(0, 10, 300)) for _ in range(4)]


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (RANDOM, "6 pairs of runs form no line"),
        ([(np.roll(np.arange(300) % 3 == 0, k), one) for k, (one, _) in enumerate(RANDOM[:3])], "no line (R2 0.00"),
        (RANDOM[:2], "needs predictions of 3 different runs; 2 here"),
        (RANDOM[:1] * 3, "3 different runs"),
        ([], "3 different runs; 0 here"),
    ],
)
def test_agreements_that_lie_on_no_line_are_refused(models: list[Any], why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        estimators.aline(models, 0.5)


def test_one_score_gives_the_published_ones() -> None:
    """The competition's pairs: 94.5 -> 83.4 predicts 95.32 -> 84.97, 95.49 -> 85.10 and 97.09 -> 88.91."""
    for local, public in PAIRS[3:]:
        assert 100 * estimators.probit_line([(0.945, 0.834)], local / 100) == pytest.approx(public, abs=0.5)


def test_the_noise_of_similar_scores_does_not_tilt_the_line() -> None:
    anchors = [(0.893, 0.799), (0.8945, 0.803), (0.896, 0.796), (0.897, 0.801), (0.899, 0.7975)]
    x, y = np.array([[probit(value) for value in anchor] for anchor in anchors]).T
    expected = np.median(y - 0.85 * x) + 0.85 * probit(0.92)
    assert probit(estimators.probit_line(anchors, 0.92)) == pytest.approx(expected)
    mistaken = [*anchors, (0.9, 0.1)]
    assert estimators.probit_line(mistaken, 0.92) == pytest.approx(estimators.probit_line(anchors, 0.92), abs=0.005)
    assert estimators.probit_line(anchors, 0.92) > 0.83
    assert estimators.probit_line([(0.9, 0.8)] * 5, 0.9) == pytest.approx(0.8)
    assert 0.7 < estimators.probit_line([(1.0, 0.9)], 0.995) < 0.9  # all of a few images right


def test_runs_that_agree_equally_often_give_no_line() -> None:
    models = [(np.zeros(1000, dtype=np.int64), np.zeros(1000, dtype=np.int64)) for _ in range(3)]
    for k, (holdout, hidden) in enumerate(models):
        holdout[200 * k : 204 * k + 46], hidden[200 * k : 204 * k + 100] = 1, 1
    with pytest.raises(Refused, match="too similar: 3 pairs"):
        estimators.aline(models, 0.9)
