import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import DEFAULT_COMPETITION, competition
from pipeline.gap import estimators, forecast
from pipeline.gap.forecast import FAR_APART, LOST, NINETY, Forecast, on_line
from pipeline.store.submissions import accuracy
from tests.gap.cases import PAIRS

RNG = np.random.default_rng(0)
LINE = competition(DEFAULT_COMPETITION).line
ANCHORS = [(0.945, 0.834)]


def outputs(count: int, ease: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities that are right above a confidence of about .4, as ATC assumes; and the true labels."""
    confidence = 0.2 + 0.79 * RNG.beta(ease, 1, size=count)
    truth = RNG.integers(0, 10, count)
    labels = np.where(confidence > RNG.normal(0.4, 0.02, count), truth, (truth + 1) % 10)
    probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(count), labels] = confidence
    return probabilities, truth


HOLDOUT, TRUTH = outputs(2000, 2.0)
HIDDEN, HIDDEN_TRUTH = outputs(2000, 1.2)
ACCURACY = accuracy(HOLDOUT.argmax(1), TRUTH)


def made(**changes: Any) -> Forecast:
    known: dict[str, Any] = {"accuracy": ACCURACY, "holdout": HOLDOUT, "hidden": HIDDEN, "scored_rows": 1000}
    return forecast.forecast(**(known | changes))


def test_without_anything_else_confidence_predicts() -> None:
    found, truth = made(), accuracy(HIDDEN.argmax(1), HIDDEN_TRUTH)
    assert ACCURACY - truth > 0.05 and found.by == "atc"
    assert found.predicted == pytest.approx(truth, abs=0.02) and found.interval[0] < truth < found.interval[1]
    assert not found.doubts and set(found.refused) == {"aline"}


AGREED = made().predicted  # so that atc contradicts none that says the same


@pytest.mark.parametrize(
    ("known", "error", "images"),
    [
        ({}, 0.02, 2000),
        ({"verdict": "natural"}, 0.02, 2000),
        ({"verdict": "corruption"}, 0.05, 2000),
        ({"verdict": "label_shift", "simulated": AGREED}, 0.008, 2000),  # re-weights the whole holdout
        ({"verdict": "corruption", "simulated": AGREED}, 0.008, 1000),  # corrupts one half
        ({"verdict": "corruption (mixed)", "simulated": AGREED, "mixed": True}, 0.03, 1000),
        ({"alarms": ["smoke"]}, LOST, 2000),
        ({"alarms": ["smoke"], "anchors": [(ACCURACY, AGREED)]}, FAR_APART, 2000),  # a score is known
        ({"anchors": [(0.95, 0.5)]}, FAR_APART, 2000),  # which atc contradicts
        ({"hidden": HIDDEN[:50]}, FAR_APART, 2000),  # which are too few
    ],
)
def test_the_interval_is_the_methods_error_and_the_luck_of_the_draw(
    known: dict[str, Any], error: float, images: int
) -> None:
    assert pytest.approx(0.90, abs=1e-3) == math.erf(NINETY / math.sqrt(2))  # the share of a normal distribution
    found = made(**known)
    p = found.predicted
    spread = NINETY * math.sqrt(error**2 + p * (1 - p) * (1 / 1000 + 1 / images))
    assert found.interval == pytest.approx((max(p - spread, 0), min(p + spread, 1)))


def flawed(truth: NDArray[np.int64], rates: tuple[float, ...]) -> list[NDArray[np.int64]]:
    """Labels of models that are wrong this often, independently but for what is hard for all."""
    hard = RNG.random(len(truth))
    return [np.where(hard + RNG.normal(0, 0.1, len(truth)) > 1 - rate, (truth + 1) % 10, truth) for rate in rates]


PEERS = list(zip(flawed(TRUTH, (0.05, 0.1, 0.2)), flawed(HIDDEN_TRUTH, (0.1, 0.17, 0.3)), strict=True))


@pytest.mark.parametrize(
    ("known", "by"),
    [
        ({}, "atc"),
        ({"peers": PEERS[:2]}, "atc"),
        ({"peers": PEERS}, "aline"),
        ({"peers": PEERS, "simulated": 0.7}, "simulated"),
        ({"peers": PEERS, "line": LINE}, "published_line"),
        ({"line": LINE, "verdict": "natural"}, "published_line"),
        # Others had no such images.
        ({"peers": PEERS, "simulated": 0.7, "line": LINE, "verdict": "corruption"}, "simulated"),
        ({"line": LINE, "verdict": "unknown"}, "atc"),
        ({"peers": PEERS, "simulated": 0.7, "line": LINE, "anchors": ANCHORS}, "anchored"),
    ],
)
def test_the_best_method_that_answers_predicts(known: dict[str, Any], by: str) -> None:
    found = made(**known)
    assert found.by == by and found.predicted == found.methods[by]
    assert ("aline" in found.refused) == (len(known.get("peers", ())) < 3)
    assert not {"published_line", "anchored"} <= set(found.methods)


def test_methods_give_what_their_estimators_give() -> None:
    assert made(peers=PEERS, simulated=0.7, anchors=ANCHORS).methods == {
        "anchored": pytest.approx(estimators.probit_line(ANCHORS, ACCURACY)),
        "simulated": 0.7,
        "aline": pytest.approx(ACCURACY - 1.15 * (ACCURACY - estimators.aline(PEERS, ACCURACY))),
        "atc": estimators.atc(HOLDOUT, ACCURACY, HIDDEN),
    }


def test_natural_images_are_harder_than_their_margins_say() -> None:
    plain, natural = made(), made(verdict="natural")
    assert ACCURACY - natural.predicted == pytest.approx(1.35 * (ACCURACY - plain.predicted))
    # What is easier than the holdout is not beyond all bounds.
    assert made(verdict="natural", hidden=np.eye(10)[TRUTH]).predicted == 1


def test_what_cannot_be_known_is_doubted() -> None:
    assert made(alarms=["smoke"]).doubts == ["smoke"]
    assert made(anchors=[(0.95, 0.5)]).doubts[0].startswith("anchored and atc differ by")
    few = made(hidden=HIDDEN[:50], scored_rows=25)
    assert "only 50 test images" in few.doubts and few.interval[0] < made(hidden=HIDDEN[:50]).interval[0]
    lost = HIDDEN.copy()
    lost[:, 3] = 0
    lost /= lost.sum(axis=1, keepdims=True)
    assert "1 of 10 classes are never predicted" in made(hidden=lost).doubts
    shifted = made(hidden=lost, verdict="label_shift", simulated=made(hidden=lost).predicted)
    assert not shifted.doubts  # that explains it
    certain = np.eye(10)[TRUTH]
    assert any("saturated" in doubt for doubt in made(holdout=certain, hidden=certain).doubts)


def test_the_published_line_goes_through_the_published_pairs() -> None:
    assert LINE is not None
    for local, score in PAIRS:
        assert 100 * on_line(LINE, local / 100) == pytest.approx(score, abs=0.5)
    assert 0 <= on_line(LINE, 0.0) < on_line(LINE, 1.0) <= 1
