"""Stage 7: one page on a run with everything in it, data/models/RUN/report/index.html, and its figures as PNG.

    python -m pipeline.report

Reads files and asks nobody, so it also shows a run that is being trained, and works offline.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import cli, commands
from pipeline.config import Paths, competition
from pipeline.console import megabytes
from pipeline.errors import BadData, Log, MissingInput, UsageError
from pipeline.store import atomic, ledger, manifest, runs, submissions
from pipeline.store.runs import REPORT, Run, RunCard
from pipeline.store.submissions import LocalCsv

if TYPE_CHECKING:
    from pipeline.gap.assessment import Assessment
    from pipeline.reporting.page import Material

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
    if out is not None:
        _require_replaceable(page)
    elif not force and runs.report_state(run, paths.processed / card.competition, paths.submissions) == "complete":
        log(f"report: {page} is complete, nothing to do")
        log(f"report: open {page.resolve().as_uri()} in a browser")
        return page
    _write(gather(run, card, paths), page, log)
    log(f"report: open {page.resolve().as_uri()} in a browser")
    return page


def _write(known: "Material", page: Path, log: Log) -> None:
    # matplotlib and PyTorch take seconds to import.
    from pipeline.model.summary import summarise  # noqa: PLC0415
    from pipeline.reporting import figures  # noqa: PLC0415
    from pipeline.reporting.page import render  # noqa: PLC0415

    sent = [(entry, known.predictions.get(entry.csv_sha256)) for entry in known.entries]
    if known.assessment and known.own is None:  # its prediction alone
        draft = known.predictions.get(known.assessment.csv.sidecar.csv_sha256)
        sent += [(draft, draft)] if draft else []
    images = (known.evidence, known.data) if known.evidence and known.data else None
    sections = {
        "training": figures.training(known.rows, known.card.config) if known.rows else [],
        "holdout": figures.holdout(*images) if images else [],
        "gap": figures.scores(sent, known.competition.line),
        "test": figures.test_set(*images) if images else [],
    }
    html = render(known, summarise(known.card.config.model), sections).encode()
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


def gather(folder: Path, card: RunCard, paths: Paths) -> "Material":
    """All that is known of the run in `folder`.

    Raises:
        MissingInput, BadData: its files, or the ledger, are damaged.
    """
    from pipeline.gap.assessment import assess  # noqa: PLC0415 - SciPy takes a second to import
    from pipeline.reporting import figures  # noqa: PLC0415
    from pipeline.reporting.page import Material  # noqa: PLC0415

    now, known, missing = datetime.now(UTC), competition(card.competition), []
    run = Run.open(paths.models, folder.name) if (folder / manifest.NAME).is_file() else None
    if run is None:
        again = commands.of_run(card, folder.name, paths.submissions)
        command = commands.command("train", known.slug, paths, *again)
        missing.append(f"The run is not finished. Unless it is being trained just now, `{command}` goes on with it.")
    lines = ledger.read(paths.submissions / ledger.NAME)
    csvs = submissions.local_csvs(paths.submissions, known.slug)
    csv, assessment, evidence, data = _newest_csv(run, csvs), None, None, None
    if csv is not None:
        try:
            assessment = assess(csv, csvs, lines, known)
            evidence = assessment.whole()
            data = figures.open_images(csv, evidence, paths.processed / known.slug)
        except (MissingInput, BadData) as error:
            missing.append(f"No {'images are' if evidence else 'prediction is'} shown: {error}.")
    elif run is not None:
        missing.append(f"No predictions are shown: `python -m pipeline.predict --run {run.name}` makes them.")
    entries = [entry for entry in ledger.current(lines, known.slug) if entry.ref]
    if not entries:
        missing.append("Nothing has been submitted yet, so no score is known.")
    return Material(
        folder=folder,
        time=now,
        card=card,
        rows=runs.read(folder / runs.METRICS),
        result=run.result if run else None,
        versions=run.manifest.versions if run else {},
        competition=known,
        assessment=assessment,
        evidence=evidence,
        data=data,
        entries=entries,
        predictions=ledger.predictions(lines, known.slug),
        reproduce=_reproduce(card, folder.name, assessment),
        missing=missing,
    )


def _folder(models: Path, name: str | None) -> Path:
    """The folder of the run `name`; without one, of the run that finished last, or else of the one begun last."""
    begun = [path.parent for path in models.glob(f"[!.]*/{runs.CONFIG}")]
    if name is None:
        try:
            return models / runs.latest(models)
        except MissingInput:
            if not begun:
                raise
            return max(begun, key=lambda folder: (folder / runs.CONFIG).stat().st_mtime)
    folder = models / runs.check_name(name)
    if folder not in begun:
        raise MissingInput(runs.absent(models, name, sorted(path.name for path in begun), None))
    return folder


def _newest_csv(run: Run | None, csvs: Sequence[LocalCsv]) -> LocalCsv | None:
    """The newest CSV predicted with the run's weights: with it alone, or else with others."""
    own = [csv for csv in csvs if run and csv.sidecar.runs.get(run.name) == run.weights_sha256]
    return max(own, key=lambda csv: (len(csv.sidecar.runs) == 1, csv.sidecar.created), default=None)


def _reproduce(card: RunCard, name: str, assessment: "Assessment | None") -> list[str]:
    """The commands that make the run and its CSV again; of a recipe of another version, why there are none."""
    again, how = f"{name}-again", []
    names = [again]
    try:
        recipe = commands.in_full(card.config, Paths.submissions)
    except BadData as error:
        return [f"# {error}"]
    if assessment is not None:
        sidecar = assessment.csv.sidecar
        names = [again if run == name else run for run in sidecar.runs]
        how = ["--tta", sidecar.tta, "--adapt", sidecar.adapt]
    stages = (("download",), ("preprocess",), ("train", *recipe, "--run", again), ("predict", "--run", *names, *how))
    return [commands.command(stage, card.competition, Paths(), *options) for stage, *options in stages]


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
