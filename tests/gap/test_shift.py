"""Each comparison on a small case that is computed by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gap import shift
from pipeline.gap.estimators import Answers
from pipeline.gap.shift import CHANCE, Classes

RNG = np.random.default_rng(0)


def sure(*labels: int, classes: int = 3) -> Answers:
    """Answers that leave no doubt."""
    return Answers(np.eye(classes)[list(labels)])


def two(*first: float) -> Answers:
    """Answers of two classes from the probabilities of the first."""
    return Answers(np.array([[p, 1 - p] for p in first]))


def calibrated(shares: NDArray[np.floating], count: int) -> tuple[Answers, NDArray[np.int64]]:
    """Answers of two classes by Bayes' rule, from a measurement that is normal around -1 or 1; and the truth."""
    truth = (RNG.random(count) < shares[1]).astype(np.int64)
    seen = RNG.normal(2 * truth - 1, 1)
    return two(*(1 / (1 + np.exp(2 * seen)))), truth  # as one who takes both classes for equally frequent


def test_answers_without_doubt_count_the_classes() -> None:
    local, truth = sure(0, 0, 1, 2), np.array([0, 0, 1, 2])
    hidden = sure(0, 1, 1, 1, 1, 1, 2, 2, 2, 2)
    found = shift.classes(local, truth, hidden)
    assert found.local.tolist() == [0.5, 0.25, 0.25]
    assert found.hidden == pytest.approx([0.1, 0.5, 0.4])
    assert found.distance == pytest.approx(0.4)
    assert found.ratio == pytest.approx([0.2, 2.0, 1.6])
    # log-likelihoods: each hidden label gains log(share / share before)
    assert found.gain == pytest.approx(2 * (np.log(0.2) + 5 * np.log(2) + 4 * np.log(1.6)))


def test_shares_are_found_behind_answers_that_doubt() -> None:
    local, truth = calibrated(np.array([0.5, 0.5]), 20_000)
    hidden, hidden_truth = calibrated(np.array([0.8, 0.2]), 20_000)
    found = shift.classes(local, truth, hidden)
    counted = float((hidden.labels == 0).mean())
    true_share = float((hidden_truth == 0).mean())
    assert found.hidden[0] == pytest.approx(true_share, abs=0.015)
    assert abs(counted - true_share) > 0.04  # counting the answers would not do
    assert not found.by_chance


def test_one_set_drawn_twice_has_not_shifted_but_by_chance() -> None:
    local, truth = calibrated(np.array([0.5, 0.5]), 3000)
    again, _ = calibrated(np.array([0.5, 0.5]), 3000)
    found = shift.classes(local, truth, again)
    assert found.distance < 0.04 and found.by_chance
    assert shift.classes(local, truth, local).distance == pytest.approx(0, abs=1e-4)


def test_a_bias_that_both_sets_share_is_no_shift() -> None:
    """A network that says the first class too often, of equally frequent ones."""
    biased, truth = two(*[0.9] * 50, *[0.4] * 50), np.repeat([0, 1], 50)
    found = shift.classes(biased, truth, biased)
    assert found.local.tolist() == [0.5, 0.5]
    assert found.hidden == pytest.approx([0.5, 0.5], abs=1e-4)


@pytest.mark.parametrize(("gain", "by_chance"), [(5.4, True), (5.42, False)])
def test_chance_is_judged_by_chi_squared(gain: float, by_chance: bool) -> None:
    # Of one degree of freedom, 2.326 ** 2 = 5.412 is exceeded in 2 of 100 samples
    share = np.array([0.5, 0.5])
    assert CHANCE == 0.02 and Classes(share, share, gain).by_chance is by_chance


def test_weights_make_the_local_classes_as_frequent_and_have_mean_1() -> None:
    found = Classes(np.array([0.2, 0.8]), np.array([0.5, 0.5]), 0.0)
    truth = np.array([0, 0, 1, 1])
    assert found.weights(truth) == pytest.approx([0.4, 0.4, 1.6, 1.6])
    # Where the images at hand have other shares than `local`, the ratio stays and the mean is 1 again
    assert found.weights(np.array([0, 1, 1, 1])) == pytest.approx(np.array([0.4, 1.6, 1.6, 1.6]) / 1.3)


def test_a_class_that_is_nowhere_weighs_nothing() -> None:
    found = Classes(np.array([0.0, 0.5, 0.5]), np.array([0.5, 0.5, 0.0]), 0.0)
    assert found.ratio.tolist() == [0.0, 1.0, 0.0]
    assert found.weights(np.array([0, 1])).tolist() == [0.0, 2.0]
    assert found.weights(np.array([0, 0])).tolist() == [1.0, 1.0]  # or there would be nothing left


def test_corrected_answers_are_those_of_one_who_knew_the_shares() -> None:
    found = Classes(np.array([0.8, 0.2]), np.array([0.5, 0.5]), 0.0)
    corrected = shift.corrected(two(0.5, 0.2), found).probabilities
    # .5 : .5 becomes 1.6 x .5 : .4 x .5, and .2 : .8 becomes .32 : .32
    assert corrected == pytest.approx(np.array([[0.8, 0.2], [0.5, 0.5]]))


def test_corrected_answers_are_right_more_often() -> None:
    local, truth = calibrated(np.array([0.5, 0.5]), 5000)
    hidden, hidden_truth = calibrated(np.array([0.9, 0.1]), 5000)
    better = shift.corrected(hidden, shift.classes(local, truth, hidden))
    assert (better.labels == hidden_truth).mean() > (hidden.labels == hidden_truth).mean() + 0.05


def test_harder_is_the_largest_surplus_of_unsure_images() -> None:
    # Ordered from unsure to sure: local .6 .7 .8 .9, hidden .55 .65 .75 .95.  Below .65 lie 2 of the hidden and 1 of
    # the local ones; below .75 3 and 2; below .55 1 and none.
    local, hidden = two(0.8, 0.6, 0.9, 0.7), two(0.75, 0.55, 0.65, 0.95)
    found = shift.harder(local, np.ones(4), hidden)
    assert found.share == pytest.approx(0.25)
    assert found.limit == pytest.approx(np.sqrt(-np.log(0.02) / 2 * (1 / 4 + 1 / 4)))
    assert not found.significant


def test_harder_is_one_sided() -> None:
    unsure, confident = two(*[0.55] * 30), two(*[0.95] * 30)
    assert shift.harder(confident, np.ones(30), unsure).share == pytest.approx(1)
    assert shift.harder(confident, np.ones(30), unsure).significant
    assert shift.harder(unsure, np.ones(30), confident).share == pytest.approx(0)
    assert not shift.harder(unsure, np.ones(30), confident).significant
    assert shift.harder(unsure, np.ones(30), unsure).share == pytest.approx(0)


def test_weights_count_in_harder() -> None:
    # The unsure local image weighs 2 of 4: half of the local ones lie below .65, as of the hidden ones
    local, hidden = two(0.6, 0.8, 0.9), two(0.62, 0.97)
    plain, weighted = (shift.harder(local, np.array(w), hidden) for w in ([1.0, 1.0, 1.0], [2.0, 1.0, 1.0]))
    assert plain.share == pytest.approx(1 / 2 - 1 / 3)
    assert weighted.share == pytest.approx(0)
    effective = 4**2 / (2**2 + 1 + 1)
    assert weighted.limit == pytest.approx(np.sqrt(-np.log(0.02) / 2 * (1 / effective + 1 / 2)))


def test_harder_exceeds_its_limit_by_chance_no_more_often_than_it_says() -> None:
    draws = [[two(*RNG.uniform(0.5, 1, 200)) for _ in range(2)] for _ in range(300)]
    exceeded = sum(shift.harder(a, np.ones(200), b).significant for a, b in draws)
    assert exceeded <= 14  # 6 are expected; more than 14 come once in a thousand times


def test_one_distribution_is_not_told_apart() -> None:
    local, hidden = RNG.normal(size=(400, 6)), RNG.normal(size=(400, 6))
    found = shift.foreign(local, np.ones(400), hidden)
    assert found.auc == pytest.approx(0.5, abs=0.08)
    assert found.scores.shape == (400,)


def test_many_features_do_not_let_it_learn_its_images_by_heart() -> None:
    local, hidden = RNG.normal(size=(100, 300)), RNG.normal(size=(100, 300))
    assert shift.foreign(local, np.ones(100), hidden).auc == pytest.approx(0.5, abs=0.15)


def test_what_is_foreign_has_the_highest_scores() -> None:
    local, hidden = RNG.normal(size=(300, 6)), RNG.normal(size=(300, 6))
    hidden[:, 2] += np.repeat([1.5, 8.0], 150)  # the second half more than the first
    found = shift.foreign(local, np.ones(300), hidden)
    assert found.auc > 0.9
    assert found.scores[150:].min() > found.scores[:150].mean()
    assert shift.foreign(local, np.ones(300), local + 50).auc > 0.999


def test_units_of_the_features_do_not_matter() -> None:
    local, hidden = RNG.normal(size=(200, 4)), RNG.normal(1.0, size=(200, 4))
    units = np.array([1.0, 1000.0, 0.001, 5.0])
    plain, scaled = (shift.foreign(local * u, np.ones(200), hidden * u).auc for u in (np.ones(4), units))
    assert plain == pytest.approx(scaled, abs=1e-3)


def test_the_area_counts_local_images_by_their_weight() -> None:
    """Half of the local images look like the hidden ones: weighed alone, they are not told apart."""
    local = np.concatenate([RNG.normal(0, 1, (300, 2)), RNG.normal(-6, 1, (300, 2))])
    hidden = RNG.normal(0, 1, (300, 2))
    alike = np.repeat([2.0, 0.0], 300)
    assert shift.foreign(local, np.ones(600), hidden).auc == pytest.approx(0.75, abs=0.06)
    assert shift.foreign(local, alike, hidden).auc == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_images_is_judged_without_a_crash(count: int) -> None:
    found = shift.foreign(RNG.normal(size=(5, 3)), np.ones(5), RNG.normal(size=(count, 3)))
    assert 0 <= found.auc <= 1 and len(found.scores) == count
    if count == 1:
        assert found.auc == 0.5 and not found.scores.any()
