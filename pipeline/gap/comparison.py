"""Local accuracy against Kaggle's score, over all submissions: the numbers, and whether they are luck."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Competition
from pipeline.gap import expected
from pipeline.gap.expected import Noise
from pipeline.gap.join import LocalCsv
from pipeline.gap.ledger import Entry

TEST_ROWS = 10_000  # CIFAR-10's test_batch, where the processed data is not at hand


@dataclass(frozen=True)
class Comparison:
    """What is known.  Accuracies in per cent, gaps in points; None is unknown.

    The single values are of `newest`: the newest submission of a CSV of ours that has a score; if there is
    none, the newest with a score; if there is none, the newest.
    """

    competition: str
    submissions: list[Entry]
    newest: Entry | None
    public_rows: int | None
    rows_assumed: bool  # public_rows is half of the hidden set, for want of better knowledge
    noise: Noise | None  # in points
    line_expects: float | None  # public score, by the competition's published line
    optimistic: bool | None  # whether `local` was selected on the very set it is measured on
    not_asked: str | None  # why Kaggle was not asked

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        newest = self.newest
        return {
            "competition": self.competition,
            "run": newest.run if newest else None,
            "ref": newest.ref if newest else None,
            "status": newest.status if newest else None,
            "local": newest.local_test if newest else None,
            "validation": newest.local_validation if newest else None,
            "public": newest.public if newest else None,
            "private": newest.private if newest else None,
            "gap": newest.gap_public if newest else None,
            "public_rows": self.public_rows,
            "rows_assumed": self.rows_assumed,
            "noise": asdict(self.noise) if self.noise else None,
            "line_expects": self.line_expects,
            "optimistic": self.optimistic,
            "not_asked": self.not_asked,
            "submissions": [
                {**asdict(e), "gap_public": e.gap_public, "gap_private": e.gap_private} for e in self.submissions
            ],
        }


def compare(
    known: Competition,
    entries: list[Entry],
    csvs: Sequence[LocalCsv],
    facts: Mapping[str, Any],
    not_asked: str | None = None,
    only: str | None = None,
) -> Comparison:
    """Compare what is known.

    Args:
        known: the competition.
        entries: the current states of its submissions.
        csvs: the CSVs that are here, to tell how their local accuracy came about.
        facts: what preprocess found out of the data, or nothing.
        not_asked: why Kaggle was not asked.
        only: the sha256 of a CSV, to let the single values be of its submission.
    """
    candidates = [e for e in entries if only is None or e.csv_sha256 == only]
    newest = max(candidates, key=lambda e: (e.gap_public is not None, e.public is not None, e.ref or 0), default=None)
    selected_on = {csv.sidecar.csv_sha256: csv.sidecar.validation_set for csv in csvs}
    found = selected_on.get(newest.csv_sha256) if newest else None
    test_rows = facts["test"]["images"] if facts else TEST_ROWS
    public_rows = known.public_rows or (facts["hidden"]["images"] // 2 if facts else None)
    noise = line_expects = None
    if newest is not None and newest.local_test is not None:
        local = newest.local_test / 100
        if known.line is not None:
            line_expects = round(100 * expected.on_line(known.line, local), 2)
        if newest.public is not None and public_rows:
            raw = expected.noise(local, test_rows, newest.public / 100, public_rows)
            noise = Noise(round(100 * raw.sigma, 3), round(100 * raw.limit, 3), raw.exceeds)
    optimistic = None if found is None else found == "test_batch"
    return Comparison(
        known.slug, entries, newest, public_rows, known.public_rows is None, noise, line_expects, optimistic, not_asked
    )
