"""A row of the table, and what is demanded of it: exit code, message, files, and one submission in the end."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.rehearsal.state import Settings
from tests.hostile.kaggle_place import (
    Outcome,
    Place,
    Stage,
    files,
    has_no_strangers_score,
    is_complete,
    lines,
    place,
)

Left = Literal["as before", "complete", "unscored"]
How = str | tuple[str, ...] | Callable[[Place], Outcome]


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    stage: Stage
    how: How  # --fault specs, or a function that provokes it
    code: int  # exit code
    said: str  # stands in the error's one line; when there is none, in what is told
    left: Left = "as before"  # the files
    sent: int = 0  # submissions of this CSV that Kaggle has afterwards
    short: bool = False  # whether it is in the suite; the long form has all
    client: Mapping[str, Any] = field(default_factory=dict)  # other settings of the Kaggle client
    command: Sequence[object] | None = None  # arguments of the real command line, where that runs
    waiting: float | None = None  # seconds until submit gives up waiting for the score
    again: int = 0  # exit code of the next run, without the fault


def run_cases(cases: Sequence[Case], folder: Path) -> None:
    """One after the other in one place, then the same command without a fault.

    Raises:
        AssertionError: with the row's name, if anything is not as the table says.
    """
    settings = Settings(daily_limit=1000, pending_seconds=0.0)
    with place(folder, cases[0].stage, settings) as here:
        for case in cases:
            _one(case, here)
        last = cases[-1]
        here.kaggle.misbehave()
        here.client, here.clock = {}, dataclasses.replace(here.clock, deadline=30.0)
        again = here.run(last.stage)
        demand(again.code == last.again, last, f"the next run ended with {again}")
        if last.again == 0:
            demand(is_complete(here, last.stage), last, f"the next run left {lines(here)}")
        if last.stage == "submit":
            demand(len(here.own) == 1, last, f"Kaggle has {len(here.own)} submissions of one CSV")
            demand(has_no_strangers_score(here), last, f"a stranger's score: {lines(here)}")


def _one(case: Case, here: Place) -> None:
    """The failure, and what it leaves."""
    before, noted = files(here), lines(here)
    found = _provoked(case, here)
    demand(found.code == case.code, case, f"ended with {found}")
    demand("\n" not in found.error, case, f"more than one line: {found.error!r}")
    demand(case.said in (found.error if case.code else found.told), case, f"said {found}")
    if case.left == "complete":
        demand(is_complete(here, case.stage), case, f"is not complete: {found} {lines(here)}")
    elif case.stage == "download" or case.left == "as before":
        demand(files(here) == before, case, "files have changed")
    demand(lines(here)[: len(noted)] == noted, case, "the ledger has lost lines")
    demand(has_no_strangers_score(here), case, f"a stranger's score: {lines(here)}")
    if case.stage == "submit":
        demand(len(here.own) == case.sent, case, f"Kaggle has {len(here.own)} submissions of it")


def _provoked(case: Case, here: Place) -> Outcome:
    here.client = dict(case.client)
    if case.waiting is not None:
        here.clock = dataclasses.replace(here.clock, deadline=case.waiting)
    if callable(case.how):
        return case.how(here)
    here.kaggle.misbehave(*([case.how] if isinstance(case.how, str) else case.how))
    return here.run(case.stage) if case.command is None else here.command(case.stage, *case.command)


def demand(holds: bool, case: Case, otherwise: str) -> None:
    """Raise AssertionError with the row's name unless it holds."""
    if not holds:
        raise AssertionError(f"{case.stage}, {case.name}: {otherwise}")
