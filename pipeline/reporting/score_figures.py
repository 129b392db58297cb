"""Local, predicted and scored accuracy: over all submissions, and on the competition's published line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.config import PublishedLine
from pipeline.gap.contact_sheets import HIDDEN, LOCAL
from pipeline.gap.expected import on_line
from pipeline.gap.ledger import Entry
from pipeline.reporting.theme import MUTED, PRIVATE, TRAIN, Drawn, blank

NEWEST = 20  # submissions that are drawn


@dataclass(frozen=True)
class Point:
    """A CSV's accuracies, in per cent; None: unknown."""

    local: float | None
    predicted: float | None
    low: float | None  # of the 90 % interval
    high: float | None
    public: float | None
    private: float | None


NOTHING = Point(None, None, None, None, None, None)


def points(entries: Sequence[Entry], foretold: Mapping[str, Entry], draft: Entry | None) -> list[Point]:
    """One for each submission of which something is known, oldest first.

    Last comes the prediction of a CSV that has not been submitted, if any.
    """
    found = [_point(entry, foretold.get(entry.csv_sha256)) for entry in entries]
    found += [_point(draft, draft)] if draft is not None else []
    return [point for point in found if point != NOTHING][-NEWEST:]


def _point(entry: Entry, foretold: Entry | None) -> Point:
    guess = (foretold.predicted, foretold.predicted_low, foretold.predicted_high) if foretold else (None, None, None)
    return Point(entry.local_test, *guess, entry.public, entry.private)


def draw(known: Sequence[Point], line: PublishedLine | None) -> list[Drawn]:
    """The two figures; `known` is not empty."""
    return [_by_submission(known), _on_line(known, line)]


def _by_submission(known: Sequence[Point]) -> Drawn:
    figure = blank(280)
    axes = figure.subplots()
    places = np.arange(1, len(known) + 1)
    series = {
        "local": ([p.local for p in known], LOCAL, "o"),
        "public": ([p.public for p in known], HIDDEN, "s"),
        "private": ([p.private for p in known], PRIVATE, "D"),
    }
    for name, (values, colour, marker) in series.items():
        if any(value is not None for value in values):
            axes.plot(places, _numbers(values), color=colour, marker=marker, linewidth=1, label=name)
    _predictions(axes, places.astype(np.float64), known)
    axes.set(xlim=(0.4, len(known) + 0.6), xlabel=_order(known), ylabel="accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    return Drawn("scores", "Local, predicted and scored", f"By submission: {_words(known)}.", figure)


def _order(known: Sequence[Point]) -> str:
    unsent = known[-1].public is None and known[-1].private is None
    return "submission, oldest first" + (" (last: no score)" if unsent else "")


def _on_line(known: Sequence[Point], line: PublishedLine | None) -> Drawn:
    figure = blank(280)
    axes = figure.subplots()
    local = _numbers([p.local for p in known])
    low, high = _limits(known)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="dotted", label="no gap")
    if line is not None:
        grid = np.linspace(low, high, 200)
        axes.plot(grid, [100 * on_line(line, value / 100) for value in grid], color=TRAIN, label="published line")
    for values, colour, marker, name in (
        ([p.public for p in known], HIDDEN, "s", "public"),
        ([p.private for p in known], PRIVATE, "D", "private"),
    ):
        if any(value is not None for value in values):
            axes.plot(local, _numbers(values), color=colour, marker=marker, linestyle="", label=name)
    _predictions(axes, local, known)
    axes.set(xlim=(low, high), xlabel="local accuracy, %", ylabel="score on Kaggle, %")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    words = f"Score against local accuracy: {_words(known)}."
    if line is not None:
        words += " The published line: " + ", ".join(
            f"{value} % locally, {100 * on_line(line, value / 100):.1f} % on Kaggle" for value in (90, 95, 98)
        )
        words += "."
    return Drawn("line", "Score against local accuracy", words, figure)


def _limits(known: Sequence[Point]) -> tuple[float, float]:
    """Of the local accuracies, with room around them: points one beside another would look far apart."""
    local = [p.local for p in known if p.local is not None] or [90.0]
    low, high = min(local), max(local)
    room = max(3.0, (high - low) / 4)
    return max(low - room, 0.0), min(high + room, 100.0)


def _predictions(axes: Axes, places: np.typing.NDArray[np.float64], known: Sequence[Point]) -> None:
    """Predicted scores with their 90 % intervals."""
    guess, low, high = (_numbers([getattr(p, n) for p in known]) for n in ("predicted", "low", "high"))
    if not np.isfinite(guess).any():
        return
    # Below the scores that it foretells.  Whoever edits the ledger can leave a prediction outside its interval.
    reach = np.maximum([guess - low, high - guess], 0)
    axes.errorbar(places, guess, yerr=reach, color=TRAIN, fmt="_", markersize=9, capsize=4,
                  elinewidth=1.5, zorder=1.9, label="predicted, 90 %")  # fmt: skip


def _numbers(values: Sequence[float | None]) -> np.typing.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _words(known: Sequence[Point]) -> str:
    return "; ".join(
        ", ".join(
            f"{name} {value:.2f} %"
            for name, value in (
                ("local", p.local), ("predicted", p.predicted), ("public", p.public), ("private", p.private),
            )
            if value is not None
        )
        for p in known
    )  # fmt: skip
