"""Mitigations on models so simple that their outputs can be predicted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Corruption, Images
from pipeline.gap.diagnosis import Trial
from pipeline.gap.prediction import Simulation, choice, simulated_corruption, trial_of_prior
from pipeline.gap.shift import LabelShift
from pipeline.store.submissions import Adapt, Mitigation
from tests.gap.cases import ALIKE, SWAPPED, plain, two


def darkened(by: float) -> Fit:
    return Fit(2.0, (Corruption("brightness", -by),), 0.2, (), False)


def greys(*values: int) -> Images:
    return plain(*[(value, value, value) for value in values])


@dataclass(frozen=True)
class Colour:
    """Says which channel is brightest, whatever the statistics."""

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        assert images.flags.c_contiguous  # torch takes no negative strides
        means = images.mean(axis=(1, 2), dtype=np.float32)
        return np.asarray(means / means.sum(axis=1, keepdims=True), dtype=np.float32)

    def adapted(self, images: Images, reference: Images) -> "Colour":
        return self


@dataclass(frozen=True)
class Light:
    """Says 1 of what is lighter than `centre`, which moves as the mean does."""

    centre: float

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        lighter = images.mean(axis=(1, 2, 3)) > self.centre
        return np.asarray(np.eye(2)[lighter.astype(int)], dtype=np.float32)

    def adapted(self, images: Images, reference: Images) -> "Light":
        return Light(self.centre + float(images.mean() - reference.mean()))


RGB = plain((200, 50, 10), (20, 200, 90), (10, 50, 200), (200, 100, 10))
FOGGED = Fit(3.0, (Corruption("fog", 0.5), Corruption("brightness", -50.0)), 0.2, (), False)


@pytest.mark.parametrize(
    ("panel", "fit", "reference", "images", "truth", "trials"),
    [
        # Without a corruption or enough images there is nothing to try
        (Colour(), ALIKE, greys(1, 2), greys(3, 4), (0, 0), []),
        (Colour(), SWAPPED, greys(1), greys(2), (0,), []),
        # The last is mislabelled: red for a 2, which the swap makes right by luck
        (Colour(), SWAPPED, RGB, RGB, (0, 1, 2, 2), [Trial("bn", 0.5, 0.5, 0.0), Trial("revert", 0.5, 0.75, 0.0)]),
        # Both of mean 130: batch norms follow the light
        (Light(128), darkened(60), greys(10, 130, 130, 250), greys(90, 110, 150, 170), (0, 0, 1, 1),
         [Trial("bn", 0.5, 1.0, 0.0)]),
        # The reference is darker by 96 than clean images are, and lighter by 19 than corrupted ones: 0, 0, 5 and 120
        (Light(128), darkened(130), greys(50, 50, 50, 50), greys(100, 100, 135, 250), (0, 0, 1, 1),
         [Trial("bn", 0.5, 0.75, -0.25)]),
        # Fog makes 155 and 195 of 90 and 170, less 50 they are 105 and 145; the other way round 130 and 170.  Two
        # corruptions are not reverted
        (Light(120), FOGGED, greys(90, 170), greys(90, 170), (0, 1), [Trial("bn", 1.0, 1.0, 0.0)]),
    ],
)  # fmt: skip
def test_mitigations_are_tried_on_images_corrupted_like_the_hidden_ones(
    panel: Any, fit: Fit, reference: Images, images: Images, truth: tuple[int, ...], trials: list[Trial]
) -> None:
    """The first half of what is at hand is the reference, whose labels are all wrong."""
    labels = np.array([9] * len(reference) + [*truth])
    assert list(simulated_corruption(panel, fit, np.concatenate([reference, images]), labels).trials) == trials


def test_an_estimate_heeds_the_confidence_and_an_exact_simulation() -> None:
    trials = (trial(0.25), trial(0.1, mitigation="prior"))
    outputs: dict[Mitigation, Any] = {name: two(0.6, 0.7, 0.8, 0.9) for name in ("none", "bn")}
    simulation = Simulation(trials, outputs)
    # .5 and .75 are right in the simulation, so that an image counts as right from .8, or .7, on
    hidden = two(0.65, 0.75, 0.75, 0.95, 0.95)
    assert simulation.estimate("none", hidden) == pytest.approx((0.5 + 2 / 5) / 2)
    assert simulation.estimate("bn", hidden) == pytest.approx((0.75 + 4 / 5) / 2)
    assert Simulation(trials, outputs, exact=False).estimate("bn", hidden) == pytest.approx(4 / 5)
    # Without simulated outputs, what its trial says; without a trial, nothing
    assert simulation.estimate("prior", hidden) == 0.6 and simulation.estimate("revert", hidden) is None
    assert Simulation().estimate("none", hidden) is None


def trial(gain: float, side_effect: float = 0.0, mitigation: Mitigation = "bn") -> Trial:
    return Trial(mitigation, 0.5, 0.5 + gain, side_effect)


@pytest.mark.parametrize(
    ("adapt", "trials", "chosen"),
    [
        ("auto", [], "none"),
        # A mitigation must gain half a point, and cost less than one where nothing is wrong
        *(("auto", [trial(gain)], "none") for gain in (-0.1, 0.004)),
        ("auto", [trial(0.006)], "bn"),
        ("auto", [trial(0.1, -0.009)], "bn"),
        ("auto", [trial(0.1, -0.011)], "none"),
        ("auto", [trial(0.4, -0.5), trial(0.3, mitigation="revert"), trial(0.2)], "revert"),
        # What is asked for is done, whatever the trials say.
        ("none", [trial(0.2)], "none"),
        ("prior", [trial(0.2), trial(-0.2, mitigation="prior")], "prior"),
    ],
)
def test_the_best_of_the_recommended_is_chosen(adapt: Adapt, trials: list[Trial], chosen: Mitigation) -> None:
    assert choice(adapt, trials) == chosen


def test_the_prior_is_tried_on_probabilities_weighted_as_the_hidden_ones() -> None:
    classes = LabelShift(hidden=np.array([0.2, 0.8]), holdout=np.array([0.5, 0.5]), gain=9.0)
    trial = trial_of_prior(two(0.9, 0.6, 0.3, 0.85), np.array([0, 1, 1, 0]), classes)
    # A 0 weighs .4, a 1 1.6.  The second is wrong: (.4 + 1.6 + .4) / 4.  Times .4 and 1.6 it is .24 : .64, right.
    assert (trial.before, trial.after) == pytest.approx((0.6, 1.0)) and trial.recommended
    classes = LabelShift(hidden=np.array([0.3, 0.7]), holdout=np.array([0.5, 0.5]), gain=9.0)
    trial = trial_of_prior(two(0.6, 0.9, 0.1, 0.1), np.array([0, 0, 1, 1]), classes)
    # .6 x .6 against 1.4 x .4: the first is called 1, and weighs .6 of 4
    assert (trial.before, trial.after) == pytest.approx((1.0, 1 - 0.6 / 4)) and not trial.recommended
