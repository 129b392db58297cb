"""How the answers to the hidden images differ from those to labelled ones: classes, difficulty, foreignness.

Significance says little here: of 10,000 images every difference is significant.  So each comparison gives the size of
an effect, and what sampling alone would make of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruptions import Images
from pipeline.gap.estimators import Answers

Weights = NDArray[np.float64]
STEPS = 1000  # of the EM, which ends earlier where it has converged
CONVERGED = 1e-7
CHANCE = 0.02  # that sampling alone exceeds a limit
FOLDS = 5
REGULARISATION = 1e-3  # of the classifier that tells two samples apart: hundreds of features, a thousand images


@dataclass(frozen=True)
class Classes:
    """How often each class comes, estimated for the hidden images.  Shares of sum 1, (classes,)."""

    hidden: NDArray[np.float64]
    local: NDArray[np.float64]
    gain: float  # twice the log-likelihood that the estimate gains over `local`; chi-squared by chance

    @property
    def distance(self) -> float:
        """Total variation: the share of images that would have to change their class, 0..1."""
        return float(abs(self.hidden - self.local).sum() / 2)

    @property
    def by_chance(self) -> bool:
        """Whether sampling alone may explain the gain."""
        from scipy.stats import chi2  # noqa: PLC0415 - a second that most commands need not take

        return self.gain < float(chi2.isf(CHANCE, len(self.local) - 1))

    @property
    def ratio(self) -> NDArray[np.float64]:
        """How many times as often each class comes, (classes,)."""
        found: NDArray[np.float64] = np.divide(
            self.hidden, self.local, out=np.zeros_like(self.hidden), where=self.local > 0
        )
        return found

    def weights(self, truth: NDArray[np.integer]) -> Weights:
        """What the local images (N,) of these labels count, to be distributed as the hidden ones; their mean is 1."""
        weights = self.ratio[truth]
        return weights / weights.mean() if weights.any() else np.ones(len(truth))


def classes(local: Answers, truth: NDArray[np.integer], hidden: Answers) -> Classes:
    """The shares under which the hidden answers are likeliest: Saerens et al. 2002, "Adjusting the outputs".

    Both answers must be calibrated.  It takes for granted that images of one class look alike in both sets: where that
    is not so it finds shifts that are none, so look at `harder` as well.
    """
    shares = np.bincount(truth, minlength=local.probabilities.shape[1]) / len(truth)
    assumed = local.probabilities.mean(axis=0)  # what the network takes for the shares
    found = assumed
    for _ in range(STEPS):
        scaled = hidden.probabilities * (found / assumed)
        following = (scaled / scaled.sum(axis=1, keepdims=True)).mean(axis=0)
        done = abs(following - found).sum() < CONVERGED
        found = following
        if done:
            break
    gain = 2 * float(np.log((hidden.probabilities * (found / assumed)).sum(axis=1)).sum())
    # The network's bias towards some classes is in `assumed` as well: only the change is the set's own.
    moved = shares * found / assumed
    return Classes(moved / moved.sum(), shares, gain)


def corrected(hidden: Answers, found: Classes) -> Answers:
    """The hidden answers of a network that had known how often each class comes."""
    scaled = hidden.probabilities * found.ratio
    return Answers(scaled / scaled.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Harder:
    """By how much the hidden images are answered less surely."""

    share: float  # the most by which more hidden than local images lie below one confidence; one-sided KS, 0..1
    limit: float  # what sampling alone exceeds once in 50 times

    @property
    def significant(self) -> bool:
        """Whether they are."""
        return self.share > self.limit


def harder(local: Answers, weights: Weights, hidden: Answers) -> Harder:
    """Compare negative entropies; the local images count by `weights` (N,).

    The limit is that of Smirnov's one-sided test, sqrt(-log(chance) / 2 (1/n + 1/m)), with Kish's effective number of
    weighted images.
    """
    before, after = local.negative_entropy, np.sort(hidden.negative_entropy)
    order = np.argsort(before)
    below = np.concatenate([[0.0], np.cumsum(weights[order])]) / weights.sum()
    points = np.concatenate([before, after])
    more = np.searchsorted(after, points, "right") / len(after) - below[np.searchsorted(before[order], points, "right")]
    effective = weights.sum() ** 2 / (weights**2).sum()
    limit = np.sqrt(-np.log(CHANCE) / 2 * (1 / effective + 1 / len(hidden)))
    return Harder(float(more.max()), float(limit))


@dataclass(frozen=True)
class Foreign:
    """How well a classifier tells hidden from local images."""

    auc: float  # area under its ROC curve, the local ones weighted; .5: not at all, 1: always
    scores: NDArray[np.float64]  # (n,): of the hidden images, how unlike local ones each is


def foreign(local: NDArray[np.floating], weights: Weights, hidden: NDArray[np.floating]) -> Foreign:
    """The classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv:1610.06545) on features (m, F) and (n, F).

    A logistic regression, scored on images that it has not seen.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - two seconds
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    is_hidden = np.repeat([0, 1], [len(local), len(hidden)])
    folds = min(FOLDS, len(local), len(hidden))
    if folds < 2:
        return Foreign(0.5, np.zeros(len(hidden)))
    scores = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=500)),
        np.concatenate([local, hidden]),
        is_hidden,
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
        method="decision_function",
    )
    counts = np.concatenate([weights, np.ones(len(hidden))])
    return Foreign(float(roc_auc_score(is_hidden, scores, sample_weight=counts)), scores[len(local) :])


# --- Which training image each image resembles most, pixel by pixel, and which are nearly the same one.


SIDE = 8
PART = 5000  # training images compared at once
ALIKE = 0.97  # correlation of two thumbnails from which they count as one image


@dataclass(frozen=True)
class Nearest:
    """The training image that each of N images resembles most."""

    rows: NDArray[np.int64]  # (N,)
    correlations: NDArray[np.float32]  # (N,), up to 1

    @property
    def alike(self) -> NDArray[np.bool_]:
        """Which images nearly are that training image, (N,)."""
        return self.correlations > ALIKE


def nearest(images: Images, training: Images) -> Nearest:
    """Compare uint8 images (N, 32, 32, 3) with all of `training` (M, 32, 32, 3), which may be memory-mapped."""
    wanted = thumbnails(images)
    rows = np.zeros(len(images), dtype=np.int64)
    best = np.full(len(images), -1, dtype=np.float32)
    for start in range(0, len(training), PART):
        found = wanted @ thumbnails(np.asarray(training[start : start + PART])).T
        index = found.argmax(axis=1)
        value = found[np.arange(len(images)), index]
        closer = value > best
        rows[closer], best[closer] = start + index[closer], value[closer]
    return Nearest(rows, best)


def thumbnails(images: Images) -> NDArray[np.float32]:
    """Uint8 images (N, 32, 32, 3) -> float32 (N, 192)."""
    count, side = len(images), images.shape[1] // SIDE
    small = images.reshape(count, SIDE, side, SIDE, side, 3).mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    small -= small.mean(axis=1, keepdims=True)
    result: NDArray[np.float32] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return result
