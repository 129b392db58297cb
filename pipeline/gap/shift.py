"""How the test images differ from the holdout: in classes, in difficulty, in features; and near duplicates.

With 10,000 images every difference is significant, so each comparison gives the size of an effect and what sampling
alone would give.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruptions import Images
from pipeline.gap.estimators import Labels, Probabilities, negative_entropy

Weights = NDArray[np.float64]  # (N,): weights that give the holdout the class frequencies of the test set
STEPS = 1000  # of the EM, at most
CONVERGED = 1e-7
FALSE_ALARM = 0.02  # chance that sampling alone exceeds a limit
FOLDS = 5
REGULARISATION = 1e-3  # of the classifier that tells two samples apart: hundreds of features, a thousand images
SIDE = 8  # pixels of a thumbnail
PART = 5000  # training images compared at once
ALIKE = 0.97  # correlation from which two thumbnails count as the same image


@dataclass(frozen=True)
class LabelShift:
    """Class frequencies, (classes,), of sum 1."""

    hidden: NDArray[np.float64]  # estimated
    holdout: NDArray[np.float64]
    gain: float  # twice the log-likelihood ratio of the estimate to `holdout`; chi-squared by chance

    @property
    def distance(self) -> float:
        """Total variation, 0..1; 0 if chance explains it."""
        from scipy.stats import chi2  # noqa: PLC0415 - a second that most commands need not take

        if self.gain < float(chi2.isf(FALSE_ALARM, len(self.holdout) - 1)):
            return 0.0
        return float(abs(self.hidden - self.holdout).sum() / 2)

    @property
    def ratio(self) -> NDArray[np.float64]:
        """How many times as often each class occurs in the test set, (classes,)."""
        return np.divide(self.hidden, self.holdout, out=np.zeros_like(self.hidden), where=self.holdout > 0)

    def weights(self, truth: Labels) -> Weights:
        """The weights of holdout images with these labels; their mean is 1."""
        weights = self.ratio[truth]
        return weights / weights.mean() if weights.any() else np.ones(len(truth))


def label_shift(holdout: Probabilities, truth: Labels, hidden: Probabilities) -> LabelShift:
    """The class frequencies that make the hidden probabilities likeliest: Saerens et al. 2002, "Adjusting the outputs".

    Needs calibrated probabilities.  Assumes that a class looks the same in both sets; if it does not, the method finds
    shifts where there are none, so look at `harder`, too.
    """
    shares = np.bincount(truth, minlength=holdout.shape[1]) / len(truth)
    assumed = holdout.mean(axis=0)  # the frequencies by the model
    likeliest = assumed
    for _ in range(STEPS):
        following = reweighted(hidden, likeliest / assumed).mean(axis=0)
        change = abs(following - likeliest).sum()
        likeliest = following
        if change < CONVERGED:
            break
    gain = 2 * float(np.log((hidden * (likeliest / assumed)).sum(axis=1)).sum())
    # `assumed` has the model's bias towards some classes, too: only the change counts.
    moved = shares * likeliest / assumed
    return LabelShift(moved / moved.sum(), shares, gain)


def reweighted(probabilities: NDArray[np.floating], ratio: NDArray[np.float64]) -> Probabilities:
    """The probabilities (N, classes) corrected for classes that occur `ratio` times as often."""
    scaled = probabilities * ratio
    total = scaled.sum(axis=1, keepdims=True)
    return np.where(total > 0, scaled / np.where(total > 0, total, 1), probabilities)  # 0: certain of an absent class


def harder(holdout: Probabilities, weights: Weights, hidden: Probabilities) -> tuple[float, float]:
    """How much less confident the model is on the test images, by negative entropy.

    Returns:
        The one-sided KS statistic, 0..1, and what sampling alone exceeds once in 50 times: Smirnov's limit,
        sqrt(-log(chance) / 2 (1/n + 1/m)), with Kish's effective number of weighted images.
    """
    before, after = negative_entropy(holdout), np.sort(negative_entropy(hidden))
    order = np.argsort(before)
    below = np.concatenate([[0.0], np.cumsum(weights[order])]) / weights.sum()
    points = np.concatenate([before, after])
    more = np.searchsorted(after, points, "right") / len(after) - below[np.searchsorted(before[order], points, "right")]
    effective = weights.sum() ** 2 / (weights**2).sum()
    limit = np.sqrt(-np.log(FALSE_ALARM) / 2 * (1 / effective + 1 / len(hidden)))
    return float(more.max()), float(limit)


def out_of_distribution(
    holdout: NDArray[np.floating], weights: Weights, hidden: NDArray[np.floating]
) -> tuple[float, NDArray[np.float64]]:
    """The classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv:1610.06545) on features (m, F) and (n, F).

    Returns:
        The AUC of a logistic regression that tells test from weighted holdout images, cross-validated: .5 chance,
        1 always.  And how far each test image is out of distribution, (n,).
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - two seconds
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    is_hidden = np.repeat([0, 1], [len(holdout), len(hidden)])
    folds = min(FOLDS, len(holdout), len(hidden))
    if folds < 2:
        return 0.5, np.zeros(len(hidden))
    scores = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=500)),
        np.concatenate([holdout, hidden]),
        is_hidden,
        cv=StratifiedKFold(folds, shuffle=True, random_state=0),
        method="decision_function",
    )
    counts = np.concatenate([weights, np.ones(len(hidden))])
    return float(roc_auc_score(is_hidden, scores, sample_weight=counts)), scores[len(holdout) :]


def nearest(images: Images, training: Images) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The row of the training image nearest to each of N images (N, 32, 32, 3), and their correlation, (N,).

    Both are uint8; the training images (M, 32, 32, 3) may be memory-mapped.
    """
    wanted = thumbnails(images)
    rows = np.zeros(len(images), dtype=np.int64)
    best = np.full(len(images), -1, dtype=np.float32)
    for start in range(0, len(training), PART):
        correlations = wanted @ thumbnails(np.asarray(training[start : start + PART])).T
        index = correlations.argmax(axis=1)
        value = correlations[np.arange(len(images)), index]
        closer = value > best
        rows[closer], best[closer] = start + index[closer], value[closer]
    return rows, best


def thumbnails(images: Images) -> NDArray[np.float32]:
    """Uint8 images (N, 32, 32, 3) -> float32 (N, 192), each of mean 0 and length 1."""
    count, side = len(images), images.shape[1] // SIDE
    small = images.reshape(count, SIDE, side, SIDE, side, 3).mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    small -= small.mean(axis=1, keepdims=True)
    return np.asarray(small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6))
