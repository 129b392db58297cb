"""Estimates of a model's accuracy on images without labels.  Accuracies are fractions in 0..1.

    atc           average thresholded confidence; Garg et al. 2022 (arXiv:2201.04234)
    aline         agreement on the line; Baek et al. 2022 (arXiv:2206.13089)
    probit_line   from known scores; Miller et al. 2021, "Accuracy on the line" (arXiv:2107.04649)

`holdout` is CIFAR-10's labelled test_batch, `hidden` the competition's unlabelled images.
"""

from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.store.submissions import Outputs

Probabilities = NDArray[np.float64]  # (N, classes), each row of sum 1
Labels = NDArray[np.integer]  # (N,)

TINY = 1e-12  # the smallest probability: a confident model outputs 0 in float32
COLDEST, HOTTEST = 0.05, 20.0  # temperatures searched
ENOUGH_IMAGES = 50_000  # images that give all estimates to 0.2 points

CLOSE_TO_A_LINE = 0.9  # R^2 below which Baek et al. warn of the agreement line
LEAST_PAIRS = 3
SPREAD = 3.0  # of the agreements, in standard errors of one: three equal ones lie on a line by chance one time in five
NEAR = 0.5  # probits by which an accuracy may exceed the agreements that the line is fitted to
PROBIT_SLOPE = 0.85  # between .82, the competition's published pairs, and CIFAR-10.1's
NORMAL = NormalDist()


class Refused(Exception):
    """Why a method gives no estimate."""


def checked(probabilities: NDArray[np.floating], of: str) -> Probabilities:
    """The probabilities of the images `of`, each row scaled to sum to 1; BadData if they are not probabilities."""
    values = probabilities.astype(np.float64)
    sums = values.sum(axis=-1, keepdims=True)
    if values.ndim != 2 or not values.size or not (values >= 0).all() or not (abs(sums - 1) <= 0.01).all():
        raise BadData(f"the probabilities of the {of} are invalid: predict again with --force")
    return np.asarray(values / sums)


def negative_entropy(probabilities: Probabilities) -> NDArray[np.float64]:
    """Sum of p log p in nats, (N,): from -log(classes), no confidence, to 0."""
    return np.asarray((probabilities * np.log(probabilities.clip(TINY))).sum(axis=1))


def at_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The softmax of the logits divided by `temperature`; above 1 is less confident."""
    scaled = np.log(probabilities.clip(TINY)) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def calibrated(
    holdout: Outputs, validation: Outputs | None, hidden: Outputs
) -> tuple[float, Probabilities, Probabilities]:
    """The temperature, and at it the probabilities of the holdout and of (a sample of) the test images.

    It makes the labels of the validation split likeliest; without a split those of the holdout.
    Guo et al. 2017, "On calibration" (arXiv:1706.04599).  BadData if the outputs are not probabilities.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - a second that most commands need not take

    labelled = validation or holdout
    probabilities, labels = checked(labelled.probabilities, "validation"), labelled.known_truth

    def loss(log_temperature: float) -> float:
        chosen = at_temperature(probabilities, float(np.exp(log_temperature)))[np.arange(len(labels)), labels]
        return float(-np.log(chosen.clip(TINY)).mean())

    best = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    temperature = float(np.exp(best.x))
    sample = hidden.probabilities[:: -(-len(hidden) // ENOUGH_IMAGES) or 1]
    both = checked(holdout.probabilities, "holdout"), checked(sample, "test set")
    return temperature, at_temperature(both[0], temperature), at_temperature(both[1], temperature)


def atc(holdout: Probabilities, holdout_accuracy: float, hidden: Probabilities) -> float:
    """The share of test images above the margin that a share `holdout_accuracy` of the holdout reaches.

    The margin between the two likeliest classes: its error varies less between models than that of Garg's entropy
    (tests/bench/natural.py).
    """
    margins = np.sort(_margin(holdout))
    wrong = round((1 - holdout_accuracy) * len(margins))
    return 0.0 if wrong == len(margins) else float((_margin(hidden) >= margins[wrong]).mean())


def _margin(probabilities: Probabilities) -> NDArray[np.float64]:
    """The likeliest class's probability minus the next one's, (N,)."""
    return np.asarray(np.diff(np.partition(probabilities, -2, axis=1)[:, -2:])[:, 0])


def aline(models: Sequence[tuple[Labels, Labels]], holdout_accuracy: float) -> float:
    """The accuracy on the probit line through the agreements of pairs of models (ALine-S).

    Args:
        models: the labels of each on the holdout and on the test images, (M,) and (N,).

    Raises:
        Refused: too few pairs, no line, or agreements that differ by chance or are far below the accuracy.
    """
    agreements = [
        [float((labels == others).mean()) for labels, others in zip(one, other, strict=True)]
        for one, other in combinations(models, 2)
    ]
    usable = [[probit(share) for share in pair] for pair in agreements if all(0 < share < 1 for share in pair)]
    if len(usable) < LEAST_PAIRS:
        raise Refused(f"needs predictions of 3 different runs; {len(models)} here")
    x, y = np.array(usable).T
    r2 = float(np.corrcoef(x, y)[0, 1] ** 2) if np.ptp(x) and np.ptp(y) else 0.0
    if r2 < CLOSE_TO_A_LINE:
        raise Refused(f"the agreements of {len(usable)} pairs of runs form no line (R2 {r2:.2f}, needs 0.90)")
    mean = NORMAL.cdf(x.mean())
    if np.ptp(x) < SPREAD * (mean * (1 - mean) / len(models[0][0])) ** 0.5 / NORMAL.pdf(x.mean()):
        raise Refused(f"the runs are too similar: {len(usable)} pairs agree equally often")
    if probit(holdout_accuracy) > x.max() + NEAR:
        raise Refused(f"no two runs agree on more than {100 * NORMAL.cdf(x.max()):.0f}% of the holdout")
    slope, intercept = np.polyfit(x, y, 1)
    return NORMAL.cdf(float(intercept + slope * probit(holdout_accuracy)))


def probit_line(anchors: Sequence[tuple[float, float]], holdout_accuracy: float) -> float:
    """The score of `holdout_accuracy` on a probit line through the `anchors`, pairs of holdout accuracy and score.

    The slope is fixed: fitted to one user's few, similar anchors it would come from the scores' sampling noise.
    """
    x, y = np.array([[probit(value) for value in anchor] for anchor in anchors]).T
    # The median, since one CSV with wrong labels must not move the line.
    return NORMAL.cdf(float(np.median(y - PROBIT_SLOPE * x)) + PROBIT_SLOPE * probit(holdout_accuracy))


def probit(fraction: float) -> float:
    """The standard normal quantile of a fraction, clipped away from 0 and 1: of few images all may be right."""
    return NORMAL.inv_cdf(min(max(fraction, 1e-3), 1 - 1e-3))
