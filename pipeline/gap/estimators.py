"""How many of a network's labels are right, on images that have no labels.  Accuracies are fractions in 0..1.

    atc           average thresholded confidence; Garg et al. 2022 (arXiv:2201.04234)
    aline         agreement on the line; Baek et al. 2022 (arXiv:2206.13089)
    probit_line   from a score that is known; Miller et al. 2021, "Accuracy on the line" (arXiv:2107.04649)

`local` is a labelled set like the training images, `hidden` the one without labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.store.submissions import Outputs

# --- Temperature scaling: probabilities that mean what they say (Guo et al. 2017, arXiv:1706.04599).


TINY = 1e-12  # the least probability: a network in float32 answers 0 where it is very sure, and log 0 is no number
COLDEST, HOTTEST = 0.05, 20.0  # temperatures searched
ENOUGH = 50_000  # answers from which all estimates are exact to 0.2 points: more would only take memory


@dataclass(frozen=True)
class Answers:
    """What a network, or an average of several, says of N images: probabilities float64 (N, classes)."""

    probabilities: NDArray[np.float64]

    @classmethod
    def checked(cls, probabilities: NDArray[np.floating], of: str) -> Self:
        """Answers, each row made to sum to exactly 1.

        Raises:
            BadData: they are no probabilities; names `of`, the images they are about.
        """
        values = probabilities.astype(np.float64)
        if values.ndim != 2 or not len(values):
            raise BadData(f"the probabilities of the {of} images are of shape {values.shape}, not (images, classes)")
        sums = values.sum(axis=1, keepdims=True)
        if not np.isfinite(values).all() or (values < 0).any() or (abs(sums - 1) > 0.01).any():
            raise BadData(f"the probabilities of the {of} images are none (not finite, negative, or not of sum 1)")
        return cls(values / sums)

    @classmethod
    def sampled(cls, probabilities: NDArray[np.floating], of: str) -> Self:
        """As `checked`, of an even sample where there are very many."""
        return cls.checked(probabilities[:: -(-len(probabilities) // ENOUGH) or 1], of)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.probabilities)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The most probable classes, (N,)."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probabilities of these, (N,)."""
        found: NDArray[np.float64] = self.probabilities.max(axis=1)
        return found

    @property
    def negative_entropy(self) -> NDArray[np.float64]:
        """Sum of p log p in nats, (N,): from -log(classes), unsure, to 0."""
        found: NDArray[np.float64] = (self.probabilities * np.log(self.probabilities.clip(TINY))).sum(axis=1)
        return found

    def at(self, temperature: float) -> "Answers":
        """The same answers at another temperature: above 1 less sure, below 1 surer."""
        scaled = np.log(self.probabilities.clip(TINY)) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        powers = np.exp(scaled)
        return Answers(powers / powers.sum(axis=1, keepdims=True))


def accuracy(answers: Answers, labels: NDArray[np.integer]) -> float:
    """The share of answers that are right, from 0 to 1."""
    return float((answers.labels == labels).mean())


def likelihood_loss(answers: Answers, labels: NDArray[np.integer]) -> float:
    """Mean negative log-likelihood of the labels (N,) in nats."""
    chosen = answers.probabilities[np.arange(len(labels)), labels]
    return float(-np.log(chosen.clip(TINY)).mean())


def fitted(test: Outputs, validation: Outputs | None) -> float:
    """The temperature by the validation split, or for want of one by the test_batch.

    Raises:
        BadData: what was said are no probabilities.
    """
    labelled = validation or test
    return temperature(Answers.checked(labelled.probabilities, "validation"), labelled.known_truth)


def temperature(answers: Answers, labels: NDArray[np.integer]) -> float:
    """The temperature at which the labels (N,) are likeliest, from 0.05 to 20."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - a second that most commands need not take

    found = minimize_scalar(
        lambda log: likelihood_loss(answers.at(float(np.exp(log))), labels),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
    )
    return float(np.exp(found.x))


CLOSE_TO_A_LINE = 0.9  # R^2 below which Baek et al. warn of the agreement line
LEAST_PAIRS = 3
NEAR = 0.5  # probits by which an accuracy may lie beyond the agreements that make the line
SLOPE = 0.85  # of the probit line from one anchor: between .82, the competition's published pairs, and CIFAR-10.1's
LEAST_ANCHORS = 5  # scores from which a slope is fitted


def atc(local: Answers, local_accuracy: float, hidden: Answers) -> float:
    """The share of hidden images whose negative entropy reaches the threshold that local_accuracy's share reaches."""
    scores = np.sort(local.negative_entropy)
    wrong = round((1 - local_accuracy) * len(scores))
    if wrong == len(scores):
        return 0.0
    return float((hidden.negative_entropy >= scores[wrong]).mean())


@dataclass(frozen=True)
class AgreementLine:
    """probit(agreement on hidden) = intercept + slope * probit(agreement on local), over pairs of networks."""

    slope: float
    intercept: float
    r2: float  # of the pairs around the line
    pairs: int  # usable ones: neither agreement is 0 or 1
    highest: float = -math.inf  # probit of the best agreement on local

    def refusal(self, local_accuracy: float) -> str | None:
        """Why the line says nothing of a network of this accuracy, or None."""
        if self.pairs < LEAST_PAIRS:
            return f"only {self.pairs} usable pairs of runs, and {LEAST_PAIRS} are needed"
        if self.r2 < CLOSE_TO_A_LINE:
            return f"the agreements of {self.pairs} pairs of runs lie on no line (R2 {self.r2:.2f}, at least .90)"
        if probit(local_accuracy) > self.highest + NEAR:
            return f"no two runs agree on more than {100 * probit_inverse(self.highest):.0f} % of the labelled images"
        return None

    def accuracy(self, local_accuracy: float) -> float:
        """Accuracy lies on the line on which agreement lies (ALine-S)."""
        return probit_inverse(self.intercept + self.slope * probit(local_accuracy))


NO_LINE = AgreementLine(0.0, 0.0, 0.0, 0)


def aline(local: Sequence[NDArray[np.integer]], hidden: Sequence[NDArray[np.integer]]) -> AgreementLine:
    """The line of several networks' labels, one array for each network in both: (M,) and (N,)."""
    found = []
    for one, other in combinations(range(len(local)), 2):
        agreements = [float((labels[one] == labels[other]).mean()) for labels in (local, hidden)]
        if all(0 < agreement < 1 for agreement in agreements):
            found.append([probit(agreement) for agreement in agreements])
    x, y = np.array(found).reshape(-1, 2).T
    if len(found) < LEAST_PAIRS or np.ptp(x) == 0:
        return replace(NO_LINE, pairs=len(found))
    slope, intercept = (float(value) for value in np.polyfit(x, y, 1))
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - float(((y - intercept - slope * x) ** 2).sum()) / spread if spread else 0.0
    return AgreementLine(slope, intercept, r2, len(found), float(x.max()))


def probit_line(anchors: Sequence[tuple[float, float]], local_accuracy: float) -> float:
    """The score that known scores promise: a probit line through the `anchors`, (local accuracy, score) each.

    Through fewer than five it has the slope .85, since a slope fitted to so few would be luck.
    """
    x, y = np.array([[probit(value) for value in anchor] for anchor in anchors]).T
    slope = SLOPE
    if len(anchors) >= LEAST_ANCHORS and np.ptp(x) > 0:
        slope = float(np.polyfit(x, y, 1)[0])
    return probit_inverse(float((y - slope * x).mean()) + slope * probit(local_accuracy))


def probit(fraction: float) -> float:
    """The standard normal quantile of a fraction, which is kept off 0 and 1."""
    from scipy.special import ndtri  # noqa: PLC0415

    return float(ndtri(min(max(fraction, 1e-6), 1 - 1e-6)))


def probit_inverse(quantile: float) -> float:
    """The standard normal distribution function."""
    from scipy.special import ndtr  # noqa: PLC0415

    return float(ndtr(quantile))
