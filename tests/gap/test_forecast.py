import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import DEFAULT_COMPETITION, competition
from pipeline.gap import estimators, forecast
from pipeline.gap.forecast import ERRORS, FAR_APART, LOST, NINETY, Forecast, on_line
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
ACCURACY = estimators.accuracy(HOLDOUT, TRUTH)


def made(**changes: Any) -> Forecast:
    known: dict[str, Any] = {"accuracy": ACCURACY, "holdout": HOLDOUT, "hidden": HIDDEN, "scored_rows": 1000}
    return forecast.forecast(**(known | changes))


def width(found: Forecast) -> float:
    return found.interval[1] - found.interval[0]


def test_without_anything_else_confidence_predicts() -> None:
    found, truth = made(), estimators.accuracy(HIDDEN, HIDDEN_TRUTH)
    assert ACCURACY - truth > 0.05 and found.by == "atc"
    assert found.predicted == pytest.approx(truth, abs=0.02) and found.interval[0] < truth < found.interval[1]
    assert not found.doubts and set(found.refused) == {"aline", "anchored"}


def test_the_interval_is_the_methods_error_and_the_luck_of_the_draw() -> None:
    assert pytest.approx(0.90, abs=1e-3) == math.erf(NINETY / math.sqrt(2))  # the share of a normal distribution
    found = made()
    p = found.predicted
    spread = NINETY * math.sqrt(ERRORS["atc"] ** 2 + p * (1 - p) * (1 / 1000 + 1 / 2000))
    assert found.interval == pytest.approx((p - spread, min(p + spread, 1)))
    corrupted = made(corrupted=True)
    assert corrupted.predicted == p and corrupted.interval[0] < found.interval[0]


def test_three_scored_predictions_give_the_interval_their_error() -> None:
    small = made(errors=[0.001, -0.001, 0.001])
    assert width(small) < width(made(errors=[0.001, 0.001]))
    assert width(made(errors=[0.05, -0.05, 0.05])) > 2 * width(small)


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
        ({"peers": PEERS, "simulated": 0.7, "line": LINE}, "published_line"),
        ({"peers": PEERS, "simulated": 0.7, "line": LINE, "anchors": ANCHORS}, "anchored"),
    ],
)
def test_the_best_method_that_answers_predicts(known: dict[str, Any], by: str) -> None:
    found = made(**known)
    assert found.by == by and found.predicted == found.methods[by]
    assert ("aline" in found.refused) == (len(known.get("peers", ())) < 3)
    assert ("anchored" in found.refused) == ("anchors" not in known)
    assert not {"published_line", "anchored"} <= set(found.methods)


def test_methods_give_what_their_estimators_give() -> None:
    assert made(peers=PEERS, simulated=0.7, anchors=ANCHORS).methods == {
        "anchored": pytest.approx(estimators.probit_line(ANCHORS, ACCURACY)),
        "simulated": 0.7,
        "aline": pytest.approx(ACCURACY - 1.15 * (ACCURACY - estimators.aline(PEERS, ACCURACY))),
        "atc": estimators.atc(HOLDOUT, ACCURACY, HIDDEN),
    }


def test_methods_that_contradict_each_other_are_unreliable() -> None:
    found = made(anchors=[(0.95, 0.5)])
    assert found.doubts[0].startswith("anchored and atc differ by")
    assert width(found) >= 2 * NINETY * FAR_APART


def test_two_corruptions_make_a_simulation_less_certain() -> None:
    agreed = made().predicted  # so that atc does not contradict it
    mixed = made(simulated=agreed, mixed=True)
    assert mixed.interval[0] < agreed - NINETY * 0.10 < made(simulated=agreed).interval[0]


def test_an_alarm_widens_the_interval_unless_a_score_is_known() -> None:
    calm, alarmed = made(), made(alarms=["smoke"])
    assert alarmed.predicted == calm.predicted and alarmed.doubts == ["smoke"]
    assert alarmed.interval[0] < calm.predicted - NINETY * LOST
    anchored = made(anchors=[(ACCURACY, calm.predicted)], alarms=["smoke"])
    assert width(anchored) < 2.2 * NINETY * FAR_APART


def test_what_cannot_be_known_is_doubted() -> None:
    few = made(hidden=HIDDEN[:50], scored_rows=None)
    assert "there are only 50 hidden images" in few.doubts and width(few) > width(made())
    lost = HIDDEN.copy()
    lost[:, 3] = 0
    assert "no hidden image is labelled 3" in made(hidden=lost / lost.sum(axis=1, keepdims=True)).doubts
    certain = np.eye(10)[TRUTH]
    assert any("saturated" in doubt for doubt in made(holdout=certain, hidden=certain).doubts)


def test_the_published_line_goes_through_the_published_pairs() -> None:
    assert LINE is not None
    for local, score in PAIRS:
        assert 100 * on_line(LINE, local / 100) == pytest.approx(score, abs=0.5)
    assert 0 <= on_line(LINE, 0.0) < on_line(LINE, 1.0) <= 1
