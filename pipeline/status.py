"""What exists, what of it is stale, and what to do next, on one screen.

    python -m pipeline.status

Reads files and asks nobody; Kaggle's word on submissions is what the ledger remembers of it.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from click.core import ParameterSource

from pipeline import cli, commands
from pipeline.config import Paths
from pipeline.overview import screen, todo, whole
from pipeline.overview.runs import RunState
from pipeline.overview.todo import Step
from pipeline.overview.whole import Overview
from pipeline.store.runs import default_name


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a competition here, and what follows from it."""

    known: Overview
    step: Step
    command: str
    instead_of: str | None = None  # the competition that was meant, of which there is nothing


def status(slug: str, paths: Paths, *, look_around: bool = False,
           now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Status:  # fmt: skip
    """The state of the competition `slug`; with `look_around`, of the only other one if there is nothing of it."""
    known, instead_of = whole.read(slug, paths, now()), None
    if look_around and known.empty and len(known.others) == 1:
        known, instead_of = whole.read(known.others[0], paths, now()), slug
    step = todo.following(known)
    return Status(known, step, _command(step, known, paths), instead_of)


def _command(step: Step, known: Overview, paths: Paths) -> str:
    """The step's command, as it is to be typed."""
    again = [] if step.again is None else _recipe(step.again, paths)
    return commands.command(step.stage, known.competition, paths, *step.options, *again)


def _recipe(run: RunState, paths: Paths) -> list[str]:
    """The options that train this very run; on other images it is another run."""
    assert run.card is not None
    name = default_name(run.card) if run.stale else run.name
    return commands.of_run(run.card, name, paths.submissions)


def show(found: Status) -> list[str]:
    """The lines for a person."""
    known, step = found.known, found.step
    shown = []
    if found.instead_of is not None:
        shown += [f"nothing is here of {found.instead_of}; this is the only other one", ""]
    shown += [*screen.lines(known), *screen.problems(known), ""]
    when = "then" if step.wait else "next"
    shown.append(f"{when}: {found.command}")
    shown.append(f"      ({step.why})")
    if known.empty:
        shown.append("      (or try it offline first: ./run_all.sh --rehearsal)")
    return shown


@cli.stage_command("""
python -m pipeline.status                                 the default competition
python -m pipeline.status --competition rehearsal-digits  another one
python -m pipeline.status --json                          for programs; accuracies in per cent
""")
@cli.competition
@cli.as_json
@cli.raw
@cli.processed
@cli.models
@cli.submissions
@click.pass_context
def command(
    context: click.Context, slug: str, as_json: bool, raw: Path, processed: Path, models: Path, submissions: Path
) -> None:
    """Show what exists, what of it is stale, and what to do next.

    If there is nothing of the default competition and something of one other, that one is shown.
    """
    paths = Paths(raw=raw, processed=processed, models=models, submissions=submissions)
    chosen = context.get_parameter_source("slug") != ParameterSource.DEFAULT
    found = status(slug, paths, look_around=not chosen)
    if as_json:
        values = found.known.to_dict() | {"next": found.command, "why": found.step.why, "wait": found.step.wait}
        cli.log(json.dumps(values, indent=2))
    else:
        for line in show(found):
            cli.log(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    return cli.run(command, "status", argv)


if __name__ == "__main__":
    sys.exit(main())
