import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import DEFAULT_COMPETITION, competition
from pipeline.gap import estimators
from pipeline.gap.estimators import Answers
from pipeline.gap.forecast import ERRORS, FAR_APART, NINETY, Forecast, Known, forecast

RNG = np.random.default_rng(0)
LINE = competition(DEFAULT_COMPETITION).line


def answers(count: int, ease: float) -> tuple[Answers, NDArray[np.int64]]:
    """Answers that are right above a confidence of about .4, as ATC assumes; and the true labels."""
    confidence = 0.2 + 0.79 * RNG.beta(ease, 1, size=count)
    truth = RNG.integers(0, 10, count)
    labels = np.where(confidence > RNG.normal(0.4, 0.02, count), truth, (truth + 1) % 10)
    probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(count), labels] = confidence
    return Answers(probabilities), truth


LOCAL, TRUTH = answers(2000, 2.0)
HIDDEN, HIDDEN_TRUTH = answers(2000, 1.2)
KNOWN = Known(LOCAL, TRUTH, HIDDEN, temperature=1.0, scored_rows=1000)


def test_confidence_is_read_right() -> None:
    found = forecast(KNOWN)
    truth = float((HIDDEN.labels == HIDDEN_TRUTH).mean())
    local = float((LOCAL.labels == TRUTH).mean())
    assert local - truth > 0.05 and found.by == "atc"
    assert found.predicted == pytest.approx(truth, abs=0.02)
    assert found.interval[0] < truth < found.interval[1]
    assert found.reliable and set(found.refused) == {"aline", "anchored"}


def test_the_interval_is_the_methods_error_and_the_luck_of_the_draw() -> None:
    found = forecast(KNOWN)
    p = found.predicted
    spread = NINETY * math.sqrt(ERRORS["atc"] ** 2 + p * (1 - p) * (1 / 1000 + 1 / 2000))
    assert found.interval == pytest.approx((p - spread, min(p + spread, 1)))
    corrupted = forecast(dataclasses.replace(KNOWN, corrupted=True))
    assert corrupted.predicted == p and corrupted.interval[0] < found.interval[0]


def width(found: Forecast) -> float:
    return found.interval[1] - found.interval[0]


def test_three_scored_predictions_give_the_interval_their_error() -> None:
    known = dataclasses.replace(KNOWN, errors=[0.001, -0.001, 0.001])
    assert width(forecast(known)) < width(forecast(dataclasses.replace(known, errors=[0.001, 0.001])))
    assert width(forecast(dataclasses.replace(known, errors=[0.05, -0.05, 0.05]))) > 2 * width(forecast(known))


def test_the_best_method_that_answers_predicts() -> None:
    with_line = dataclasses.replace(KNOWN, line=LINE)
    found = forecast(with_line)
    assert found.by == "published_line" and "anchored" in found.refused
    anchored = forecast(dataclasses.replace(with_line, anchors=[(0.945, 0.834)]))
    local = float((LOCAL.labels == TRUTH).mean())
    assert anchored.by == "anchored" and "published_line" not in anchored.methods
    assert anchored.predicted == pytest.approx(estimators.probit_line([(0.945, 0.834)], local))


def flawed(truth: NDArray[np.int64], rates: tuple[float, ...]) -> list[NDArray[np.int64]]:
    """Labels of networks that are wrong this often, independently but for what is hard for all."""
    hard = RNG.random(len(truth))
    return [np.where(hard + RNG.normal(0, 0.1, len(truth)) > 1 - rate, (truth + 1) % 10, truth) for rate in rates]


def test_three_runs_predict_by_their_agreement_and_a_larger_fall() -> None:
    peers = list(zip(flawed(TRUTH, (0.05, 0.1, 0.2)), flawed(HIDDEN_TRUTH, (0.1, 0.17, 0.3)), strict=True))
    found = forecast(dataclasses.replace(KNOWN, peers=peers))
    line = estimators.aline(*zip(*peers, strict=True))
    local = float((LOCAL.labels == TRUTH).mean())
    assert found.by == "aline" and line.refusal(local) is None
    assert found.predicted == pytest.approx(local - 1.15 * (local - line.accuracy(local)))
    assert "aline" in forecast(dataclasses.replace(KNOWN, peers=peers[:2])).refused


def test_methods_that_contradict_each_other_are_unreliable() -> None:
    known = dataclasses.replace(KNOWN, anchors=[(0.95, 0.5)])
    found = forecast(known)
    assert not found.reliable and found.doubts[0].startswith("anchored and atc differ by")
    assert width(found) >= 2 * NINETY * FAR_APART


def test_what_was_tried_predicts_before_confidence_does_and_after_scores() -> None:
    tried = dataclasses.replace(KNOWN, simulated=0.7)
    assert (forecast(tried).by, forecast(tried).predicted) == ("simulated", 0.7)
    assert forecast(dataclasses.replace(tried, anchors=[(0.945, 0.834)])).by == "anchored"
    agreed = dataclasses.replace(tried, simulated=forecast(KNOWN).predicted)
    mixed = forecast(dataclasses.replace(agreed, mixed=True))
    assert mixed.interval[0] < mixed.predicted - NINETY * 0.10 < forecast(agreed).interval[0]


def test_an_alarm_widens_the_interval_unless_a_score_is_known() -> None:
    calm, alarmed = forecast(KNOWN), forecast(dataclasses.replace(KNOWN, alarms=["smoke"]))
    assert alarmed.predicted == calm.predicted and alarmed.doubts == ["smoke"] and not alarmed.reliable
    assert alarmed.interval[0] < calm.predicted - 0.35
    anchors = [(float((LOCAL.labels == TRUTH).mean()), calm.predicted)]
    anchored = dataclasses.replace(KNOWN, anchors=anchors)
    assert width(forecast(dataclasses.replace(anchored, alarms=["smoke"]))) < 2.2 * NINETY * FAR_APART


def test_what_cannot_be_known_is_doubted() -> None:
    few = forecast(dataclasses.replace(KNOWN, hidden=Answers(HIDDEN.probabilities[:50]), scored_rows=None))
    assert "there are only 50 hidden images" in few.doubts and width(few) > width(forecast(KNOWN))
    lost = HIDDEN.probabilities.copy()
    lost[:, 3] = 0
    never = forecast(dataclasses.replace(KNOWN, hidden=Answers(lost / lost.sum(axis=1, keepdims=True))))
    assert "no hidden image is labelled 3" in never.doubts
    sure = Answers(np.eye(10)[TRUTH])
    saturated = forecast(dataclasses.replace(KNOWN, local=sure, hidden=sure))
    assert any("saturated" in doubt for doubt in saturated.doubts)
