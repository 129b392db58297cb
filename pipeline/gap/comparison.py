"""Holdout accuracy against Kaggle's scores, over all submissions: the gap, and whether it is luck."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Competition
from pipeline.gap.assessment import prediction_error
from pipeline.gap.estimators import NORMAL
from pipeline.gap.forecast import on_line
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import LocalCsv

HOLDOUT_ROWS = 10_000  # CIFAR-10's test_batch, where the processed data is not at hand
OF_NEWEST = {  # JSON key -> field
    "run": "run", "ref": "ref", "status": "status", "local": "local_test", "validation": "local_validation",
    "public": "public", "private": "private", "gap": "gap_public",
}  # fmt: skip


@dataclass(frozen=True)
class Noise:
    """Whether a gap can be sampling noise; in points."""

    sigma: float  # standard deviation of holdout accuracy - score, if both sets were equally hard
    limit: float  # the gap that noise exceeds once in 40 times (one side of 95 %)
    exceeds: bool


def noise(local: float, local_rows: int, score: float, score_rows: int) -> Noise:
    """The difference of two binomial proportions, in per cent, by the pooled normal approximation.

    Under the hypothesis of no gap both are draws of one accuracy p, so the variance of their difference is
    p (1 - p) (1/n + 1/m).  Source: the two-proportion z test of any textbook.
    """
    pooled = (local * local_rows + score * score_rows) / (local_rows + score_rows)
    sigma = math.sqrt(pooled * (100 - pooled) * (1 / local_rows + 1 / score_rows))
    limit = NORMAL.inv_cdf(0.975) * sigma
    return Noise(round(sigma, 3), round(limit, 3), abs(local - score) > limit)


@dataclass(frozen=True)
class Comparison:
    """What is known.  Accuracies in per cent, gaps in points; None is unknown.

    The single values are of `newest`: the newest submission of a CSV of ours that has a score; if there is
    none, the newest with a score; if there is none, the newest.
    """

    competition: Competition
    submissions: Sequence[Entry]
    predictions: Mapping[str, Entry]  # by the CSV's sha256
    newest: Entry | None
    public_rows: int | None
    noise: Noise | None
    line_expects: float | None  # public score, by the competition's published line
    optimistic: bool | None  # whether the checkpoint was selected on the set that `local` is measured on

    @property
    def predicted(self) -> list[tuple[Entry, Entry]]:
        """The prediction of each submitted CSV, once, and its newest submission, rather one with a score."""
        rated = sorted(self.submissions, key=lambda e: e.public is not None)
        newest = {e.csv_sha256: e for e in rated}
        return [(self.predictions[sha], entry) for sha, entry in newest.items() if sha in self.predictions]

    @property
    def details(self) -> list[str]:
        """For --verbose: what the newest score says, and how far off the predictions were."""
        lines = []
        if self.noise is not None:
            size = "more than sampling noise" if self.noise.exceeds else "within sampling noise"
            rows = f"{self.public_rows} public rows" + ", assumed" * (self.competition.public_rows is None)
            lines.append(f"newest gap: {size} (±{self.noise.limit:.2f} points at 95%, {rows})")
        if self.line_expects is not None:
            lines.append(f"published line: {self.line_expects:.2f}% for its holdout accuracy")
        if errors := [abs(error) for made, e in self.predicted if (error := prediction_error(made, e)) is not None]:
            lines.append(f"prediction error so far: {sum(errors) / len(errors):.2f} points (n={len(errors)})")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "competition": self.competition.slug,
            **{key: getattr(self.newest, name, None) for key, name in OF_NEWEST.items()},
            "public_rows": self.public_rows,
            "rows_assumed": self.competition.public_rows is None,
            "noise": asdict(self.noise) if self.noise else None,
            "line_expects": self.line_expects,
            "optimistic": self.optimistic,
            "submissions": [
                {**asdict(e), "gap_public": e.gap_public, "gap_private": e.gap_private} for e in self.submissions
            ],
            "predictions": [
                {"ref": e.ref, "predicted": p.predicted, "public": e.public, "error": prediction_error(p, e)}
                for p, e in self.predicted
            ],
        }


def compare(
    competition: Competition, entries: Sequence[Entry], csvs: Sequence[LocalCsv], facts: Mapping[str, Any],
    only: str | None = None,
) -> Comparison:  # fmt: skip
    """Compare what the ledger's `entries` and the `csvs` that are here tell.

    `facts` is what preprocess found out of the data, or nothing.  `only` is the sha256 of a CSV, to let the single
    values be of its submission.
    """
    states = ledger.current(entries, competition.slug)
    candidates = [e for e in states if only is None or e.csv_sha256 == only]
    newest = max(candidates, key=lambda e: (e.gap_public is not None, e.public is not None, e.ref or 0), default=None)
    optimistic = {csv.sidecar.csv_sha256: csv.sidecar.validation_set == "test_batch" for csv in csvs}
    # Without better knowledge, half of the hidden images.
    public_rows = competition.public_rows or (facts["hidden"]["images"] // 2 if facts else None)
    by_chance = expected = None
    if newest is not None and newest.local_test is not None:
        if competition.line is not None:
            expected = round(100 * on_line(competition.line, newest.local_test / 100), 2)
        if newest.public is not None and public_rows:
            rows = facts["test"]["images"] if facts else HOLDOUT_ROWS
            by_chance = noise(newest.local_test, rows, newest.public, public_rows)
    return Comparison(
        competition, states, ledger.predictions(entries, competition.slug), newest, public_rows, by_chance, expected,
        optimistic.get(newest.csv_sha256) if newest else None,
    )  # fmt: skip
