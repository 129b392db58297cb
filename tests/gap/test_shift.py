"""Each comparison on a small case that is computed by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gap import shift
from pipeline.gap.corruptions import Corruption, Images
from pipeline.gap.shift import ALIKE, FALSE_ALARM, LabelShift, nearest, out_of_distribution, reweighted, thumbnails
from tests.gap.cases import two

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Whatever ran before in this process."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def certain(*labels: int) -> NDArray[np.float64]:
    """Probabilities of three classes that leave no doubt."""
    return np.eye(3)[list(labels)]


def calibrated(first: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of two classes by Bayes' rule, from a measurement that is normal around -1 or 1; and the truth."""
    truth = (RNG.random(count) < 1 - first).astype(np.int64)
    seen = RNG.normal(2 * truth - 1, 1)
    return two(*(1 / (1 + np.exp(2 * seen)))), truth  # as one who takes both classes for equally frequent


def shifted(*hidden: float, gain: float = 9.0) -> LabelShift:
    """From equally frequent classes."""
    return LabelShift(np.array(hidden), np.full(len(hidden), 1 / len(hidden)), gain)


def test_probabilities_without_doubt_count_the_classes() -> None:
    found = shift.label_shift(certain(0, 0, 1, 2), np.array([0, 0, 1, 2]), certain(0, 1, 1, 1, 1, 1, 2, 2, 2, 2))
    assert found.holdout.tolist() == [0.5, 0.25, 0.25]
    assert found.hidden == pytest.approx([0.1, 0.5, 0.4])
    assert found.ratio == pytest.approx([0.2, 2.0, 1.6])
    # log-likelihoods: each hidden label gains log(share / share before)
    assert found.gain == pytest.approx(2 * (np.log(0.2) + 5 * np.log(2) + 4 * np.log(1.6)))


def test_shares_are_found_behind_probabilities_that_doubt() -> None:
    holdout, truth = calibrated(0.5, 8000)
    hidden, hidden_truth = calibrated(0.8, 8000)
    found, true_share = shift.label_shift(holdout, truth, hidden), (hidden_truth == 0).mean()
    assert found.hidden[0] == pytest.approx(true_share, abs=0.02) and found.distance > 0.25
    assert abs((hidden.argmax(axis=1) == 0).mean() - true_share) > 0.04  # counting the labels would not do
    corrected = reweighted(hidden, found.ratio).argmax(axis=1)
    assert (corrected == hidden_truth).mean() > (hidden.argmax(axis=1) == hidden_truth).mean() + 0.01


def test_one_set_drawn_twice_has_not_shifted_but_by_chance() -> None:
    holdout, truth = calibrated(0.5, 3000)
    found = shift.label_shift(holdout, truth, calibrated(0.5, 3000)[0])
    assert abs(found.hidden - found.holdout).max() < 0.04 and found.distance == 0
    biased, labels = two(*[0.9] * 50, *[0.4] * 50), np.repeat([0, 1], 50)  # the first class too often, in both sets
    assert shift.label_shift(biased, labels, biased).hidden == pytest.approx([0.5, 0.5], abs=1e-4)


@pytest.mark.parametrize(("gain", "distance"), [(5.4, 0.0), (5.42, 0.3)])
def test_chance_is_judged_by_chi_squared(gain: float, distance: float) -> None:
    # Of one degree of freedom, 2.326 ** 2 = 5.412 is exceeded in 2 of 100 samples
    assert FALSE_ALARM == 0.02 and shifted(0.8, 0.2, gain=gain).distance == pytest.approx(distance)


def test_weights_make_the_holdout_classes_as_frequent_and_have_mean_1() -> None:
    found = shifted(0.2, 0.8)
    assert found.weights(np.array([0, 0, 1, 1])) == pytest.approx([0.4, 0.4, 1.6, 1.6])
    # Where the images at hand have other shares than the holdout, the ratio stays and the mean is 1 again
    assert found.weights(np.array([0, 1, 1, 1])) == pytest.approx(np.array([0.4, 1.6, 1.6, 1.6]) / 1.3)
    nowhere = LabelShift(np.array([0.0, 0.5, 0.5]), np.array([0.5, 0.5, 0.0]), 0.0)
    assert nowhere.ratio.tolist() == [0.0, 1.0, 0.0] and nowhere.weights(np.array([0, 1])).tolist() == [0.0, 2.0]
    assert nowhere.weights(np.array([0, 0])).tolist() == [1.0, 1.0]  # or there would be nothing left


def test_reweighted_probabilities_are_those_of_one_who_knew_the_shares() -> None:
    # .5 : .5 becomes 1.6 x .5 : .4 x .5, and .2 : .8 becomes .32 : .32
    assert reweighted(two(0.5, 0.2), shifted(0.8, 0.2).ratio) == pytest.approx(np.array([[0.8, 0.2], [0.5, 0.5]]))


def test_who_is_certain_of_an_absent_class_stays_so() -> None:
    certain_of_it = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert reweighted(certain_of_it, np.array([0.0, 2.0])).tolist() == [[1.0, 0.0], [0.0, 1.0]]


LOW, HIGH = two(0.55, 0.55), two(0.95, 0.95)


@pytest.mark.parametrize(
    ("holdout", "weights", "hidden", "surplus"),
    [
        # In order: holdout .6 .7 .8 .9, hidden .55 .65 .75 .95.  Below .65 lie 2 of the hidden and 1 of the holdout
        # ones; below .75 3 and 2; below .55 1 and none.
        (two(0.8, 0.6, 0.9, 0.7), [1, 1, 1, 1], two(0.75, 0.55, 0.65, 0.95), 1 / 4),
        (HIGH, [1, 1], LOW, 1),
        (LOW, [1, 1], HIGH, 0),  # one-sided
        (two(0.6, 0.8, 0.9), [1, 1, 1], two(0.62, 0.97), 1 / 2 - 1 / 3),
        # The low-confidence holdout image weighs 2 of 4: half of the holdout lies below .65, as of the hidden ones
        (two(0.6, 0.8, 0.9), [2, 1, 1], two(0.62, 0.97), 0),
    ],
)
def test_harder_is_the_largest_surplus_of_low_confidence_images(
    holdout: NDArray[np.float64], weights: list[float], hidden: NDArray[np.float64], surplus: float
) -> None:
    weight = np.array(weights, dtype=float)
    share, limit = shift.harder(holdout, weight, hidden)
    assert share == pytest.approx(surplus, abs=1e-12)
    effective = weight.sum() ** 2 / (weight**2).sum()
    assert limit == pytest.approx(np.sqrt(-np.log(0.02) / 2 * (1 / effective + 1 / len(hidden))))


@pytest.mark.parametrize("shape", [(400, 6), (100, 300)])  # many features do not let it learn its images by heart
def test_one_distribution_is_not_told_apart(shape: tuple[int, int]) -> None:
    auc, scores = out_of_distribution(RNG.normal(size=shape), np.ones(shape[0]), RNG.normal(size=shape))
    assert auc == pytest.approx(0.5, abs=0.15) and scores.shape == (shape[0],)


def test_what_is_out_of_distribution_has_the_highest_scores() -> None:
    holdout, hidden = RNG.normal(size=(300, 6)), RNG.normal(size=(300, 6))
    hidden[:, 2] += np.repeat([2.0, 8.0], 150)  # the second half more than the first
    auc, scores = out_of_distribution(holdout, np.ones(300), hidden)
    assert auc > 0.9 and scores[150:].min() > scores[:150].mean()
    units = np.array([1.0, 1000.0, 0.001, 5.0, 1.0, 1.0])
    assert out_of_distribution(holdout * units, np.ones(300), hidden * units)[0] == pytest.approx(auc, abs=1e-3)


def test_the_area_counts_holdout_images_by_their_weight() -> None:
    """Half of the holdout images look like the hidden ones: weighed alone, they are not told apart."""
    holdout = np.concatenate([RNG.normal(0, 1, (300, 2)), RNG.normal(-6, 1, (300, 2))])
    hidden = RNG.normal(0, 1, (300, 2))
    assert out_of_distribution(holdout, np.ones(600), hidden)[0] == pytest.approx(0.75, abs=0.06)
    assert out_of_distribution(holdout, np.repeat([2.0, 0.0], 300), hidden)[0] == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("count", [1, 2])
def test_a_handful_of_images_is_compared_without_a_crash(count: int) -> None:
    auc, scores = out_of_distribution(RNG.normal(size=(5, 3)), np.ones(5), RNG.normal(size=(count, 3)))
    assert 0 <= auc <= 1 and len(scores) == count
    assert count > 1 or (auc == 0.5 and not scores.any())


# --- near duplicates

COLOURS = (
    np.random.default_rng(1).integers(60, 190, (54, 8, 8, 3)).astype(np.uint8)
)  # none that a change of contrast would clip


def enlarged(thumbnail: NDArray[np.uint8]) -> Images:
    result: Images = thumbnail.repeat(4, axis=1).repeat(4, axis=2)
    return result


TRAINING, OTHERS = np.split(enlarged(COLOURS), [50])


def test_a_thumbnail_is_of_means_of_mean_0_and_length_1() -> None:
    noise = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = thumbnails(noise)
    assert found.shape == (3, 192) and found.dtype == np.float32
    assert found.mean(axis=1) == pytest.approx(0, abs=1e-6) and (found**2).sum(axis=1) == pytest.approx(1, abs=1e-5)
    means = [noise[1, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean(axis=(0, 1)) for y in range(8) for x in range(8)]
    assert np.corrcoef(found[1], np.ravel(means))[0, 1] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("part", [shift.PART, 7])  # training images compared at once
def test_copies_are_found_in_whatever_brightness_and_contrast(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift, "PART", part)
    copies = [
        TRAINING[[0, 6, 7, 49]],
        Corruption("brightness", 40)(TRAINING[31:32]),
        (0.5 * TRAINING[44:45] + 20).astype(np.uint8),
        Corruption("contrast", 0.5)(TRAINING[18:19]),
    ]
    rows, correlations = nearest(np.concatenate(copies), TRAINING)
    assert rows.tolist() == [0, 6, 7, 49, 31, 44, 18] and (correlations > ALIKE).all()
    # Contrast is changed around each channel's mean, so the last is of slightly other colours
    assert correlations[:-1] == pytest.approx(1, abs=1e-3)


def test_what_is_not_there_is_like_nothing() -> None:
    plain = np.full((1, 32, 32, 3), 77, dtype=np.uint8)
    _, correlations = nearest(np.concatenate([OTHERS, 255 - TRAINING[:1], plain]), TRAINING)
    assert (correlations < 0.5).all() and correlations[-1] == pytest.approx(0, abs=1e-4)
