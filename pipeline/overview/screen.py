"""A competition's state on one screen: at most WIDTH columns, and a few lines a part."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.console import duration
from pipeline.errors import printable
from pipeline.overview.csvs import CsvState
from pipeline.overview.data import Folder
from pipeline.overview.runs import RunState
from pipeline.overview.whole import Ledger, Overview

WIDTH = 100
NAME = 28  # characters of a name
RUNS, CSVS = 5, 4  # that are shown, the newest
INDENT = 11  # columns of the parts' names
RUN_HEADER = ("", "", "validation", "test", "")
CSV_HEADER = ("", "local", "predicted", "public", "")


def lines(known: Overview) -> list[str]:
    """The screen, without what comes next."""
    shown = [
        _line("competition", known.competition),
        _line("raw", _folder(known.raw)),
        _line("processed", _folder(known.processed)),
        *_table("runs", RUN_HEADER, [_run(run) for run in known.runs[:RUNS]], len(known.runs) - RUNS),
        *_table("CSVs", CSV_HEADER, [_csv(csv) for csv in known.csvs[:CSVS]], len(known.csvs) - CSVS),
    ]
    if known.report is not None:
        state = {"absent": "none yet", "stale": f"stale: {known.report.path}", "complete": known.report.path}
        shown.append(_line("report", state[known.report.state]))
    shown.append(_line("ledger", _ledger(known.ledger)))
    if known.others:
        shown.append(_line("also here", ", ".join(known.others)))
    return shown


def problems(known: Overview) -> list[str]:
    """What is damaged, and what helps."""
    found = [folder.text for folder in (known.raw, known.processed) if folder.state == "damaged"]
    found += [run.problem for run in known.runs[:RUNS] if run.problem]
    found += [csv.problem for csv in known.csvs[:CSVS] if csv.problem]
    found += [text for text in (known.latest_problem, known.ledger.problem) if text]
    return [f"damaged: {printable(text, 10 * len(text))}" for text in found]


def _line(name: str, text: str) -> str:
    line = f"{name:<{INDENT}} {printable(text, WIDTH)}"
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _folder(folder: Folder) -> str:
    if folder.state == "damaged":
        return "damaged (see below)"
    return folder.text if folder.state in ("absent", "under way", "interrupted") else f"{folder.state}: {folder.text}"


def _table(name: str, header: Sequence[str], rows: Sequence[Sequence[str]], more: int) -> list[str]:
    """The rows in columns below the header, those that have a name there to the right; how many are not shown."""
    if not rows:
        return [_line(name, "none yet")]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    texts = []
    for row in (header, *rows):
        cells = zip(row, header, widths, strict=True)
        texts.append("  ".join(cell.rjust(width) if title else cell.ljust(width) for cell, title, width in cells))
    if more > 0:
        texts.append(f"and {more:,} older")
    return [_line(name if k == 0 else "", text.rstrip()) for k, text in enumerate(texts)]


def _run(run: RunState) -> list[str]:
    """name, state, validation, test and notes."""
    name = printable(run.name, NAME)
    if run.state == "damaged":
        return [name, "damaged", "", "", ""]
    word = "stale" if run.stale else run.state
    state = word if run.state == "finished" else f"{word} {run.epoch}/{run.epochs}"
    notes = ["LATEST"] if run.latest else []
    notes += [] if run.submittable else ["over the budget"]
    if run.state == "training" and run.seconds_left is not None:
        notes.append(f"at {run.changed[11:16]} UTC, {duration(run.seconds_left)} to go")
    elif run.state == "interrupted":
        notes.append(f"{run.changed[:16].replace('T', ' ')} UTC")
    return [name, state, _share(run.validation), _share(run.test), ", ".join(notes)]


def _csv(csv: CsvState) -> list[str]:
    """name, accuracies, and what became of it."""
    name = printable(Path(csv.path).name, NAME)
    if csv.problem:
        return [name, "", "", "", "damaged"]
    notes = [f"stale: {csv.stale}" if csv.stale else csv.submission]
    notes += [] if csv.submittable else ["over the budget"]
    return [name, _share(csv.local), _share(csv.predicted), _share(csv.public), ", ".join(notes)]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


def _ledger(known: Ledger) -> str:
    if known.problem:
        return "damaged (see below)"
    if not known.total:
        return "nothing submitted yet"
    best = "no score yet" if known.best_public is None else f"best public {known.best_public:.2f} %"
    plural = "" if known.total == 1 else "s"
    return f"{best}, {known.total:,} submission{plural}, {known.today:,} today (UTC); Kaggle was not asked"
