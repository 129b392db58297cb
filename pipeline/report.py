"""What a person looks at: data/models/RUN/report/index.html, one page with everything in it, and its figures as PNG.

    python -m pipeline.report

Asks nobody and computes nothing anew, so it also shows a run that is still being trained, and works offline.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import cli, commands
from pipeline.config import Paths
from pipeline.console import megabytes
from pipeline.errors import BadData, Log, UsageError
from pipeline.reporting import figures
from pipeline.reporting.page import Material, gather, identity
from pipeline.store import atomic
from pipeline.store.runs import REPORT

if TYPE_CHECKING:
    from pipeline.reporting.page import Figures

PAGE = REPORT.name
MARK = '<meta name="generator" content="pipeline.report">'  # a page with it is ours to replace
INPUTS = '<meta name="inputs" content="{}">'  # what it is made of
SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")  # files that a file manager leaves wherever somebody looks
NEWEST = 20  # submissions in the table


@dataclass(frozen=True)
class Reported:
    """The page, and the pictures beside it."""

    page: Path
    pictures: tuple[Path, ...]


def report(
    paths: Paths, log: Log, *, run_name: str | None = None, out: Path | None = None,
    force: bool = False, now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Reported:  # fmt: skip
    """Write the report of a run; one that was there is replaced, unless it is made of the same.

    Args:
        run_name: the run; by default the one that train finished last, or, if none has, the one it began last.
        out: the folder to write; by default data/models/RUN/report.

    Raises:
        MissingInput: there is no such run.
        BadData: the run's files or the ledger are damaged.
        UsageError: `out` holds something else than a report, which would be lost.
    """
    known = gather(paths, run_name)
    folder = known.folder / REPORT.parent
    if out is not None:
        folder = out.resolve()
        _require_replaceable(folder)
    inputs = identity(known, paths)
    if not force and _is_of(folder / PAGE, inputs):
        log(f"report: {folder / PAGE} is complete, nothing to do")
        return _told(folder, log)
    _write(known, folder, inputs, now(), log)
    return _told(folder, log)


def _told(folder: Path, log: Log) -> Reported:
    log(f"report: open {(folder / PAGE).resolve().as_uri()} in a browser")
    return Reported(folder / PAGE, tuple(sorted(folder.glob("*.png"))))


def _is_of(page: Path, inputs: str) -> bool:
    """Whether the page is there, and made of these."""
    return page.is_file() and INPUTS.format(inputs) in page.read_text(encoding="utf-8", errors="replace")


def _write(known: Material, folder: Path, inputs: str, now: datetime, log: Log) -> None:
    # matplotlib and PyTorch take seconds to import.
    from pipeline.model.summary import summarise  # noqa: PLC0415
    from pipeline.reporting import page  # noqa: PLC0415

    with figures.style(), atomic.lock(folder), atomic.replacing_folder(folder) as temporary:
        drawn_figures = _draw(known)
        summary = summarise(known.card.config.model)
        html = page.render(known, summary, drawn_figures, _reproduce(known), now, NEWEST, MARK + INPUTS.format(inputs))
        written = [figures.write_png(drawn, temporary).name for drawn in drawn_figures.all()]
        for sheet in drawn_figures.sheets.values():
            figures.draw_contact_sheets(sheet).savefig(temporary / f"{sheet.name}.png", dpi=figures.DPI)
            written.append(f"{sheet.name}.png")
        (temporary / PAGE).write_text(html, encoding="utf-8")
    for line in known.missing:
        log(f"report: {line}")
    log(f"report: {folder / PAGE}, {megabytes(len(html.encode()))}, and {len(written)} pictures beside it")


def _require_replaceable(folder: Path) -> None:
    """Refuse a folder with anything in it that is not a report's: the report takes the place of all of it."""
    if not folder.is_dir():
        return
    page = folder / PAGE
    ours = page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")
    for path in sorted(folder.iterdir()):
        if not ours or not (path == page or path.suffix == ".png" or path.name in SYSTEMS):
            raise UsageError(f"{folder} holds {path.name}, which is no report's: name a new folder, or an empty one")


def _draw(known: Material) -> "Figures":
    """Everything that can be drawn of what is known."""
    from pipeline.reporting.page import Figures  # noqa: PLC0415

    draft = None
    if known.judged is not None and known.own is None:
        draft = known.foretold.get(known.judged.csv.sidecar.csv_sha256)
    points = figures.points(known.entries, known.foretold, draft)
    scores = figures.draw_scores(points, known.competition.line) if points else []
    training = figures.draw_training(known.rows, known.card.config) if known.rows else []
    if known.evidence is None or known.data is None:
        return Figures(training=training, scores=scores)
    names = known.data.class_names
    sheets = [kind(known.evidence, known.data) for kind in figures.KINDS]
    return Figures(
        training=training,
        scores=scores,
        answers=figures.labelled(known.evidence, names),
        hidden=figures.hidden(known.evidence, names),
        sheets={sheet.name: sheet for sheet in sheets if sheet.tiles},
    )


def _reproduce(known: Material) -> list[str]:
    """The commands that make the run and its CSV again; of a recipe of another version, why there are none."""
    slug, again = known.competition.slug, f"{known.name}-again"
    try:
        recipe = commands.in_full(known.card.config, Paths.submissions)
    except BadData as error:
        return [f"# {error}"]
    names, how = [again], []
    if known.judged is not None:
        sidecar = known.judged.csv.sidecar
        names = [again if name == known.name else name for name in sidecar.runs]
        how = ["--tta", sidecar.tta, "--adapt", sidecar.adapt]
    stages = (("download",), ("preprocess",), ("train", *recipe, "--run", again), ("predict", "--run", *names, *how))
    return [commands.command(stage, slug, Paths(), *options) for stage, *options in stages]


@cli.stage_command("""
python -m pipeline.report                         the run that train finished last
python -m pipeline.report --run paper-1f3a9c2b    that run, also while it is being trained
python -m pipeline.report --out FOLDER            into a folder of your own
""")
@cli.run_name("The run; by default the one that train finished last.")
@click.option(
    "--out",
    metavar="FOLDER",
    type=cli.FOLDER,
    help="A new folder, or a report's; by default report in the run's.",
)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "report", argv)


if __name__ == "__main__":
    sys.exit(main())
