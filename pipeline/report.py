"""Stage 7: one page on a run with everything in it, data/models/RUN/report/index.html, and its figures as PNG.

    python -m pipeline.report

Reads files and asks nobody, so it also shows a run that is being trained, and works offline.
"""

import os
import sys
from functools import partial
from pathlib import Path

import click

from pipeline import cli
from pipeline.config import Paths
from pipeline.console import megabytes
from pipeline.errors import Log, MissingInput, UsageError
from pipeline.store import atomic, runs
from pipeline.store.overview import report_state
from pipeline.store.runs import REPORT, RunCard

SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")  # files that a file manager leaves in any folder


def report(
    paths: Paths, log: Log, *, run_name: str | None = None, out: Path | None = None, force: bool = False
) -> Path:  # fmt: skip
    """Write the report of a run, and return its page; a newer one than all it shows is left as it is.

    Args:
        run_name: the run; by default the one that train finished last, or, if none has, the one it began last.
        out: the folder to write; by default data/models/RUN/report.

    Raises:
        MissingInput: there is no such run.
        BadData: the run's files or the ledger are damaged.
        UsageError: `out` holds something else than a report, which would be lost.
    """
    run = _folder(paths.models, run_name)
    card = RunCard.read(run)
    page = run / REPORT if out is None else out.resolve() / REPORT.name
    _require_replaceable(page)
    log(f"report: run {run.name}")
    state = report_state(run, paths.processed / card.competition, paths.submissions)
    if out is None and not force and state == "complete":
        log(f"report: {page} is complete, nothing to do")
    else:
        _write(run, card, page, paths, log)
    log(f"report: open {page.resolve().as_uri()} in a browser")
    return page


def _write(run: Path, card: RunCard, page: Path, paths: Paths, log: Log) -> None:
    from pipeline.reporting.page import draw, gather, render  # noqa: PLC0415 - matplotlib and PyTorch take seconds

    known = gather(run, card, paths)
    sections = draw(known)
    html = render(known, sections).encode()
    pictures = [picture for section in sections.values() for picture in section]
    with atomic.lock(page.parent), atomic.replacing_folder(page.parent) as temporary:
        for picture in pictures:
            (temporary / f"{picture.name}.png").write_bytes(picture.png)
        (temporary / page.name).write_bytes(html)
        # What changes from now on is not in it.
        os.utime(temporary / page.name, (known.time.timestamp(), known.time.timestamp()))
    for line in known.missing:
        log(f"report: {line}")
    log(f"report: {page}, {megabytes(len(html))}, and {len(pictures)} pictures beside it")


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


def _require_replaceable(page: Path) -> None:
    """Refuse a folder with anything in it that is not a report's: the report takes the place of all of it."""
    from pipeline.reporting.page import MARK  # noqa: PLC0415 - Jinja takes time to import

    ours = page.is_file() and f'content="{MARK}"' in page.read_text(encoding="utf-8", errors="replace")
    for path in sorted(page.parent.iterdir()) if page.parent.is_dir() else ():
        if not ours or not (path == page or path.suffix == ".png" or path.name in SYSTEMS):
            raise UsageError(f"{page.parent} holds {path.name}, which is not a report's: name a new or empty folder")


@cli.stage_command("""
python -m pipeline.report                         the run that train finished last
python -m pipeline.report --run paper-1f3a9c2b    that run, also while it is being trained
python -m pipeline.report --out FOLDER            into a folder of your own
""")
@cli.run_name("The run; by default the one that train finished last.")
@click.option("--out", metavar="FOLDER", type=cli.FOLDER,
              help="A new folder, or a report's; by default report in the run's.")  # fmt: skip
@cli.processed
@cli.models
@cli.submissions
@cli.force
def command(
    run_name: str | None, out: Path | None, processed: Path, models: Path, submissions: Path, force: bool
) -> None:
    """Write a run's report: one HTML page that opens from disk, and its figures as PNG.

    Works half-way through a run, and with no submission yet.
    """
    paths = Paths(processed=processed, models=models, submissions=submissions)
    report(paths, cli.log, run_name=run_name, out=out, force=force)


main = partial(cli.run, command, "report")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
