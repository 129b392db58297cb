"""Stage 7: one page on a run with everything in it: data/models/RUN/report/index.html.

    python -m pipeline.report

Reads files only, so it works offline, and during training.
"""

import os
import sys
from functools import partial
from pathlib import Path

import click

from pipeline import cli, console
from pipeline.config import Paths
from pipeline.console import working
from pipeline.errors import Log, MissingInput, UsageError
from pipeline.store import atomic, runs
from pipeline.store.overview import report_state
from pipeline.store.runs import REPORT, RunCard

MARK = '<meta name="generator" content="pipeline.report">'  # in the head of our pages


def report(
    paths: Paths, log: Log, *, run_name: str | None = None, out: Path | None = None, force: bool = False
) -> Path:  # fmt: skip
    """Write the report of a run, and return its page; a newer one than all it shows is left as it is.

    Args:
        run_name: the run; by default the one that train finished last, else the one begun last.
        out: the folder to write it in; by default data/models/RUN/report.

    Raises:
        MissingInput: there is no such run.
        BadData: the run's files or the ledger are damaged.
        UsageError: another page is in its place.
    """
    run = _folder(paths.models, run_name)
    log(f"report: run {run.name}")
    card, page = RunCard.read(run), run / REPORT if out is None else out.resolve() / REPORT.name
    if page.is_file() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{page} is not a report's: name another folder")
    state = report_state(run, paths.processed / card.competition, paths.submissions)
    if out is None and not force and state == "complete":
        console.show(f"{page}: complete, nothing to do")
    else:
        from pipeline.reporting.page import draw, gather, render  # noqa: PLC0415 - matplotlib takes seconds

        with working("drawing the figures"):
            known = gather(run, card, paths)
            html = render(known, draw(known)).encode()
        with atomic.lock(page):
            atomic.write_bytes(page, html)
            os.utime(page, (known.time.timestamp(),) * 2)  # what changes from now on is not in it
        for line in known.missing:
            console.show(line)
    console.show(f"open {page.resolve().as_uri()} in a browser")
    return page


def _folder(models: Path, name: str | None) -> Path:
    """The folder of the run `name`; without one, of the run that finished last, or else of the one begun last."""
    begun = [path.parent for path in models.glob(f"[!.]*/{runs.CONFIG}")]
    try:
        folder = models / (runs.latest(models) if name is None else runs.check_name(name))
    except MissingInput:
        if not (begun := [folder for folder in begun if not runs.is_trial(folder)]):
            raise
        return max(begun, key=lambda folder: (folder / runs.CONFIG).stat().st_mtime)
    if folder not in begun:
        raise runs.no_such_run(models, folder.name, sorted(path.name for path in begun))
    return folder


@cli.stage_command("""
python -m pipeline.report                         the run that train finished last
python -m pipeline.report --run paper-1f3a9c2b    that run, also while it is being trained
python -m pipeline.report --out FOLDER            as FOLDER/index.html
""")
@cli.run_name("The run; by default the one that train finished last.")
@click.option("--out", metavar="FOLDER", type=cli.FOLDER, help="The page's folder; by default the run's own report/.")
@cli.processed
@cli.models
@cli.submissions
@cli.force
def command(run_name: str | None, out: Path | None, paths: Paths, force: bool) -> None:
    """Write a run's report: one self-contained HTML page.

    Works during training, and before any submission.
    """
    report(paths, console.log, run_name=run_name, out=out, force=force)


main = partial(cli.run, command, "report")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
