"""The predicted public score of a CSV and its interval.  Accuracies, errors and intervals are fractions in 0..1.

The first method that applies gives the prediction; the others show whether it can be trusted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import PublishedLine
from pipeline.gap import estimators
from pipeline.gap.diagnosis import TRIED, Verdict
from pipeline.gap.estimators import NORMAL, Labels, Probabilities, Refused, probit

# Root mean square errors on CIFAR-10 without sampling error, in the order in which methods are preferred.  simulated
# comes before aline: it exists only for a corruption or label shift, where aline errs more.  Sources: anchored and
# published_line, the competition's published pairs; aline and simulated, the test sets of tests/bench/gap.py, seven
# seeds (101 to 104, 201 to 203); atc, natural sets, three models, each alone (tests/bench/natural.py).
ERRORS = {"anchored": 0.008, "published_line": 0.012, "simulated": 0.008, "aline": 0.005, "atc": 0.020}
CORRUPTED = {"atc": 0.050}  # on corrupted test images
MIXED = {"simulated": 0.030}  # on several corruptions; same sets
# Methods underrate the fall of accuracy on harder natural images by these factors; same sets.
UNDERRATED = {"aline": 1.15, "atc": 1.35}

FAR_APART = 0.04  # methods that differ by more disagree
NINETY = 1.645  # standard deviations on each side of a 90% interval
FEW = 100  # test images; with fewer, any estimate is mostly luck
LOST = 0.25  # error on an unknown corruption: models are confidently wrong then
CERTAIN = 0.9999  # mean confidence from which probabilities are saturated


def on_line(line: PublishedLine, accuracy: float) -> float:
    """The score of a holdout accuracy on the competition's published line."""
    return NORMAL.cdf(line.intercept + line.slope * probit(accuracy))


@dataclass(frozen=True)
class Forecast:
    """A predicted public score."""

    predicted: float
    interval: tuple[float, float]  # 90%
    by: str  # the method that predicts
    methods: Mapping[str, float]  # method -> its estimate, bias corrected
    refused: Mapping[str, str]  # method -> why it gives no estimate
    doubts: Sequence[str]  # why the prediction may be wrong


def forecast(
    *, accuracy: float, holdout: Probabilities, hidden: Probabilities, peers: Sequence[tuple[Labels, Labels]] = (),
    anchors: Sequence[tuple[float, float]] = (), line: PublishedLine | None = None, simulated: float | None = None,
    verdict: Verdict = "none", mixed: bool = False, alarms: Sequence[str] = (),
    scored_rows: int,
) -> Forecast:  # fmt: skip
    """Predict the public score by the first method that applies.

    Args:
        accuracy: on the holdout.
        holdout: calibrated probabilities of the holdout.
        hidden: calibrated probabilities of the test images.
        peers: the labels of each available run, on the holdout and on the test images.
        anchors: (holdout accuracy, public score) of scored submissions.
        line: the competition's published line.
        simulated: the accuracy on holdout images shifted like the test set.
        verdict: of the diagnosis.
        mixed: whether the diagnosis found several corruptions.
        alarms: why the diagnosis does not trust the probabilities.
        scored_rows: rows behind the public score.
    """
    atc = estimators.atc(holdout, accuracy, hidden)
    if verdict == "natural":
        atc = unbiased("atc", accuracy, atc)
    if verdict not in ("none", "natural"):  # the published scores are of other images then
        line = None
    methods, refused = _estimates(accuracy, peers, anchors, line, simulated, atc)
    by, predicted = next(iter(methods.items()))
    doubts = [*alarms, *_doubts(holdout, hidden, methods, verdict)]
    error = (ERRORS | (CORRUPTED if verdict.startswith("corruption") else {}) | (MIXED if mixed else {}))[by]
    if doubts:
        error = max(error, FAR_APART)
    if alarms and by not in ("anchored", "published_line"):
        error = max(error, LOST)
    images = len(holdout)
    if by == "simulated" and verdict != "label_shift":
        images = max(min(images, TRIED) // 2, 1)
    # The method's error and the sampling error, added as variances.
    spread = NINETY * math.sqrt(error**2 + predicted * (1 - predicted) * (1 / scored_rows + 1 / images))
    interval = max(predicted - spread, 0.0), min(predicted + spread, 1.0)
    return Forecast(predicted, interval, by, methods, refused, doubts)


def _estimates(
    accuracy: float, peers: Sequence[tuple[Labels, Labels]], anchors: Sequence[tuple[float, float]],
    line: PublishedLine | None, simulated: float | None, atc: float,
) -> tuple[dict[str, float], dict[str, str]]:  # fmt: skip
    """The methods' estimates, the preferred one first, and why the others give none."""
    estimates: dict[str, float] = {}
    refused = {}
    if anchors:
        estimates["anchored"] = estimators.probit_line(anchors, accuracy)
    elif line is not None:
        estimates["published_line"] = on_line(line, accuracy)
    if simulated is not None:
        estimates["simulated"] = simulated
    try:
        estimates["aline"] = unbiased("aline", accuracy, estimators.aline(peers, accuracy))
    except Refused as refusal:
        refused["aline"] = str(refusal)
    return estimates | {"atc": atc}, refused


def unbiased(method: str, accuracy: float, estimate: float) -> float:
    """The estimate with its fall from the holdout accuracy scaled by the method's bias."""
    return min(max(accuracy - UNDERRATED[method] * (accuracy - estimate), 0.0), 1.0)


def _doubts(holdout: Probabilities, hidden: Probabilities, methods: Mapping[str, float], verdict: Verdict) -> list[str]:
    """Why the first method's prediction may be wrong."""
    doubts, best = [], next(iter(methods))
    apart = abs(methods[best] - methods["atc"])
    if apart > FAR_APART:
        doubts.append(f"{best} and atc differ by {100 * apart:.1f} points")
    if len(hidden) < FEW:
        doubts.append(f"only {len(hidden)} test images")
    absent = sorted(set(range(hidden.shape[1])) - set(hidden.argmax(axis=1).tolist()))
    if absent and verdict != "label_shift":
        doubts.append(f"{len(absent)} of {hidden.shape[1]} classes are never predicted")
    if min(holdout.max(axis=1).mean(), hidden.max(axis=1).mean()) > CERTAIN:
        doubts.append("the probabilities are saturated")
    return doubts
