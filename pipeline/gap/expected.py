"""What a local accuracy promises on Kaggle, and how much of a gap is luck.  Fractions in 0..1 throughout."""

import math
from dataclasses import dataclass

from pipeline.config import PublishedLine


@dataclass(frozen=True)
class Noise:
    """Whether a gap can be sampling noise."""

    sigma: float  # standard deviation of local - score, if both sets were equally hard
    limit: float  # the gap that noise exceeds once in 40 times (one side of 95 %)
    exceeds: bool


def on_line(line: PublishedLine, local: float) -> float:
    """The score that the competition's published line expects for a local accuracy in (0, 1)."""
    from scipy.stats import norm  # noqa: PLC0415 - a second that most commands need not take

    clipped = min(max(local, 1e-6), 1 - 1e-6)
    return float(norm.cdf(line.intercept + line.slope * norm.ppf(clipped)))


def noise(local: float, local_rows: int, score: float, score_rows: int) -> Noise:
    """The difference of two binomial proportions, by the pooled normal approximation.

    Under the hypothesis of no gap both are draws of one accuracy p, so the variance of their difference is
    p (1 - p) (1/n + 1/m).  Source: the two-proportion z test of any textbook.
    """
    from scipy.stats import norm  # noqa: PLC0415

    pooled = (local * local_rows + score * score_rows) / (local_rows + score_rows)
    sigma = math.sqrt(pooled * (1 - pooled) * (1 / local_rows + 1 / score_rows))
    limit = float(norm.ppf(0.975)) * sigma
    return Noise(sigma, limit, abs(local - score) > limit)
