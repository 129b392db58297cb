"""Temperature scaling: probabilities that mean what they say (Guo et al. 2017, arXiv:1706.04599).

A network trained to the end is surer than it is right.  One number mends most of it: its logits are divided by a
temperature, chosen on labelled images so that the likelihood of their labels is largest.  No label changes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.store.evidence import Said

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


def fitted(test: Said, validation: Said | None) -> float:
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
