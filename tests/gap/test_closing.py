"""Measures on networks so simple that their answers can be foretold."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gap import adapt
from pipeline.gap.adapt import Predictor, Trial, choice, trial_of_prior, trials_of_damage
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Done, Images
from pipeline.gap.estimators import Answers
from pipeline.gap.shift import Classes

SWAPPED = Found(2.0, (Done("channels swapped, BGR for RGB"),), 0.2, (), False)


def darkened(by: float) -> Found:
    return Found(2.0, (Done("brightness", -by),), 0.2, (), False)


def plain(*colours: tuple[int, int, int]) -> Images:
    """Images of one colour each."""
    return np.broadcast_to(np.array(colours, dtype=np.uint8)[:, None, None], (len(colours), 32, 32, 3)).copy()


def greys(*values: int) -> Images:
    return plain(*[(value, value, value) for value in values])


@dataclass(frozen=True)
class Colour:
    """Says which channel is brightest, whatever the statistics."""

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        assert images.flags.c_contiguous  # torch takes no negative strides
        means = images.mean(axis=(1, 2), dtype=np.float32)
        return np.asarray(means / means.sum(axis=1, keepdims=True), dtype=np.float32)

    def adapted(self, images: Images, reference: Images) -> Predictor:
        return self


@dataclass(frozen=True)
class Light:
    """Says 1 of what is lighter than `centre`, which moves as the mean does."""

    centre: float

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        lighter = images.mean(axis=(1, 2, 3)) > self.centre
        return np.asarray(np.eye(2)[lighter.astype(int)], dtype=np.float32)

    def adapted(self, images: Images, reference: Images) -> Predictor:
        return Light(self.centre + float(images.mean() - reference.mean()))


def tried(panel: Predictor, found: Found, reference: Images, images: Images, *truth: int) -> list[Trial]:
    """Trials on `images`, the first half of what is at hand being the reference, whose labels are all wrong."""
    assert len(reference) == len(images) == len(truth)
    return trials_of_damage(panel, found, np.concatenate([reference, images]), np.array([9] * len(truth) + [*truth]))


def test_without_damage_there_is_nothing_to_try() -> None:
    assert trials_of_damage(Colour(), Found(0.3, (), 0.3, (), False), greys(1), np.array([0])) == []


def test_swapped_channels_are_turned_back() -> None:
    images = plain((200, 50, 10), (20, 200, 90), (10, 50, 200), (200, 100, 10))
    norms, undo = tried(Colour(), SWAPPED, images, images, 0, 1, 2, 2)
    # The last is mislabelled: red for a 2, which the swap makes right by luck
    assert undo == Trial("revert", before=0.5, after=0.75, unharmed=0.0)
    assert norms == Trial("bn", before=0.5, after=0.5, unharmed=0.0)
    assert undo.recommended and not norms.recommended
    assert choice("auto", [norms, undo]) == "revert"


def test_norms_follow_the_light() -> None:
    reference, images = greys(10, 130, 130, 250), greys(90, 110, 150, 170)  # both of mean 130
    (norms,) = tried(Light(128), darkened(60), reference, images, 0, 0, 1, 1)
    assert norms == Trial("bn", before=0.5, after=1.0, unharmed=0.0)
    assert norms.recommended and choice("auto", [norms]) == "bn"


def test_what_harms_clean_images_is_not_recommended() -> None:
    # The reference is darker by 96 than clean images are, and lighter by 19 than damaged ones: 0, 0, 5 and 120
    reference, images = greys(50, 50, 50, 50), greys(100, 100, 135, 250)
    (norms,) = tried(Light(128), darkened(130), reference, images, 0, 0, 1, 1)
    assert norms == Trial("bn", before=0.5, after=0.75, unharmed=-0.25)
    assert not norms.recommended and choice("auto", [norms]) == "none"


def test_two_damages_are_both_done_in_their_order_and_not_undone() -> None:
    # Fog makes 155 and 195 of 90 and 170, less 50 they are 105 and 145; the other way round 130 and 170
    found = Found(3.0, (Done("fog", 0.5), Done("brightness", -50.0)), 0.2, (), False)
    (norms,) = tried(Light(120), found, greys(90, 170), greys(90, 170), 0, 1)
    assert norms.measure == "bn" and norms.before == 1.0


@pytest.mark.parametrize(
    ("gain", "unharmed", "recommended"),
    [(0.006, 0.0, True), (0.004, 0.0, False), (-0.1, 0.0, False), (0.1, -0.009, True), (0.1, -0.011, False)],
)
def test_a_measure_must_gain_half_a_point_and_cost_less_than_one(
    gain: float, unharmed: float, recommended: bool
) -> None:
    assert (adapt.WORTH_IT, adapt.HARMLESS) == (0.005, 0.01)
    trial = Trial("bn", 0.6, 0.6 + gain, unharmed)
    assert trial.recommended is recommended
    assert choice("auto", [trial]) == ("bn" if recommended else "none")


def test_the_best_of_the_recommended_is_chosen() -> None:
    norms, undo = Trial("bn", 0.5, 0.8, 0.0), Trial("revert", 0.5, 0.7, 0.0)
    assert choice("auto", [norms, undo]) == choice("auto", [undo, norms]) == "bn"
    assert choice("auto", [Trial("bn", 0.5, 0.8, -0.5), undo]) == "revert"
    assert choice("auto", []) == "none"


def test_what_is_asked_for_is_done_whatever_the_trials_say() -> None:
    good, bad = Trial("bn", 0.5, 0.8, 0.0), Trial("prior", 0.5, 0.3, 0.0)
    assert choice("none", [good]) == "none"
    assert choice("prior", [good, bad]) == "prior"
    assert choice("revert", []) == "revert"


def test_the_prior_is_tried_on_answers_weighted_as_the_hidden_ones() -> None:
    local = Answers(np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.85, 0.15]]))
    found = Classes(hidden=np.array([0.2, 0.8]), local=np.array([0.5, 0.5]), gain=9.0)
    trial = trial_of_prior(local, np.array([0, 1, 1, 0]), found)
    # A 0 weighs .4, a 1 1.6.  The second is wrong: (.4 + 1.6 + .4) / 4.  Times .4 and 1.6 it is .24 : .64, right.
    assert (trial.measure, trial.unharmed) == ("prior", 0.0)
    assert trial.before == pytest.approx(0.6) and trial.after == pytest.approx(1.0)
    assert trial.recommended


def test_a_prior_that_overrules_right_answers_loses() -> None:
    local = Answers(np.array([[0.6, 0.4], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]))
    found = Classes(hidden=np.array([0.3, 0.7]), local=np.array([0.5, 0.5]), gain=9.0)
    trial = trial_of_prior(local, np.array([0, 0, 1, 1]), found)
    # .6 x .6 against 1.4 x .4: the first is called 1, and weighs .6 of 4
    assert trial.before == pytest.approx(1.0) and trial.after == pytest.approx(1 - 0.6 / 4)
    assert not trial.recommended
