"""How many of a model's labels are right on images without labels.  Accuracies are fractions in 0..1.

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

TINY = 1e-12  # the smallest probability: a confident model outputs 0 in float32, which has no logarithm
COLDEST, HOTTEST = 0.05, 20.0  # temperatures searched
ENOUGH_IMAGES = 50_000  # images from which all estimates are exact to 0.2 points: more would only take memory

CLOSE_TO_A_LINE = 0.9  # R^2 below which Baek et al. warn of the agreement line
LEAST_PAIRS = 3
NEAR = 0.5  # probits by which an accuracy may lie beyond the agreements that make the line
PROBIT_SLOPE = 0.85  # from one anchor: between .82, the competition's published pairs, and CIFAR-10.1's
LEAST_ANCHORS = 5  # scores from which a slope is fitted
NORMAL = NormalDist()


class Refused(Exception):
    """A method gives no estimate; says why."""


def checked(probabilities: NDArray[np.floating], of: str) -> Probabilities:
    """The probabilities of the images `of`, each row made to sum to exactly 1.

    Raises:
        BadData: they are not probabilities.
    """
    values = probabilities.astype(np.float64)
    sums = values.sum(axis=-1, keepdims=True)
    if values.ndim != 2 or not values.size or not (values >= 0).all() or not (abs(sums - 1) <= 0.01).all():
        raise BadData(f"the probabilities of the {of} images are none: predict again with --force")
    return np.asarray(values / sums)


def negative_entropy(probabilities: Probabilities) -> NDArray[np.float64]:
    """Sum of p log p in nats, (N,): from -log(classes), no confidence at all, to 0."""
    return np.asarray((probabilities * np.log(probabilities.clip(TINY))).sum(axis=1))


def at_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The softmax of the logits divided by `temperature`: above 1 less confident, below 1 more."""
    scaled = np.log(probabilities.clip(TINY)) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def calibrated(
    holdout: Outputs, validation: Outputs | None, hidden: Outputs
) -> tuple[float, Probabilities, Probabilities]:
    """The temperature, and at it the probabilities of the holdout and of the hidden images, of very many a sample.

    It is the one, from 0.05 to 20, at which the labels of the validation split are likeliest; without a split those of
    the holdout.  Guo et al. 2017, "On calibration" (arXiv:1706.04599).

    Raises:
        BadData: the outputs are not probabilities.
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
    both = checked(holdout.probabilities, "test"), checked(sample, "hidden")
    return temperature, at_temperature(both[0], temperature), at_temperature(both[1], temperature)


def atc(holdout: Probabilities, holdout_accuracy: float, hidden: Probabilities) -> float:
    """The share of hidden images above the margin that a share `holdout_accuracy` of the holdout reaches.

    The margin between the two likeliest classes, as its error differs less from network to network than that of Garg's
    entropy (tests/bench/natural.py).
    """
    margins = np.sort(_margin(holdout))
    wrong = round((1 - holdout_accuracy) * len(margins))
    return 0.0 if wrong == len(margins) else float((_margin(hidden) >= margins[wrong]).mean())


def _margin(probabilities: Probabilities) -> NDArray[np.float64]:
    """By how much the likeliest class is likelier than the next, (N,)."""
    return np.asarray(np.diff(np.partition(probabilities, -2, axis=1)[:, -2:])[:, 0])


def aline(models: Sequence[tuple[Labels, Labels]], holdout_accuracy: float) -> float:
    """The accuracy on the line on which the agreements of pairs of models lie (ALine-S), in probits.

    Args:
        models: of each its labels on the holdout and on the hidden images, (M,) and (N,).
        holdout_accuracy: of the one in question.

    Raises:
        Refused: the pairs are too few, lie on no line, or agree on far less than the accuracy.
    """
    agreements = [
        [float((labels == others).mean()) for labels, others in zip(one, other, strict=True)]
        for one, other in combinations(models, 2)
    ]
    usable = [[probit(share) for share in pair] for pair in agreements if all(0 < share < 1 for share in pair)]
    if len(usable) < LEAST_PAIRS:
        raise Refused(f"only {len(usable)} usable pairs of runs, and {LEAST_PAIRS} are needed")
    x, y = np.array(usable).T
    r2 = float(np.corrcoef(x, y)[0, 1] ** 2) if np.ptp(x) and np.ptp(y) else 0.0
    if r2 < CLOSE_TO_A_LINE:
        raise Refused(f"the agreements of {len(usable)} pairs of runs lie on no line (R2 {r2:.2f}, at least .90)")
    if probit(holdout_accuracy) > x.max() + NEAR:
        raise Refused(f"no two runs agree on more than {100 * NORMAL.cdf(x.max()):.0f} % of the labelled images")
    slope, intercept = np.polyfit(x, y, 1)
    return NORMAL.cdf(float(intercept + slope * probit(holdout_accuracy)))


def probit_line(anchors: Sequence[tuple[float, float]], holdout_accuracy: float) -> float:
    """The score that a probit line through the `anchors`, (holdout accuracy, score) each, gives an accuracy.

    Through fewer than five it has the slope .85, since a slope fitted to so few would be luck.
    """
    x, y = np.array([[probit(value) for value in anchor] for anchor in anchors]).T
    slope = PROBIT_SLOPE
    if len(anchors) >= LEAST_ANCHORS and np.ptp(x) > 0:
        slope = float(np.polyfit(x, y, 1)[0])
    return NORMAL.cdf(float((y - slope * x).mean()) + slope * probit(holdout_accuracy))


def probit(fraction: float) -> float:
    """The standard normal quantile of a fraction, which is kept off 0 and 1."""
    return NORMAL.inv_cdf(min(max(fraction, 1e-6), 1 - 1e-6))
