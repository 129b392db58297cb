"""The report's page: report.html.j2 filled with what is known of a run.  One HTML file holds everything it shows."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from pipeline import commands
from pipeline.config import PARAMETER_LIMIT, Competition, Paths, competition
from pipeline.console import duration
from pipeline.errors import BadData, MissingInput
from pipeline.gap.advice import Advice, advise
from pipeline.gap.assessment import Assessment, assess
from pipeline.model.summary import HEAD, summarise
from pipeline.reporting import figures
from pipeline.reporting.figures import Picture
from pipeline.store import ledger, manifest, runs
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, Run, RunCard, best_row, seconds_left
from pipeline.store.submissions import Evidence, default_csv, local_csvs

HERE = Path(__file__).parent
MARK = "pipeline.report"  # the generator that the page's head names
NEWEST = 20  # submissions in the table


@dataclass(frozen=True)
class Material:
    """One run and all that is known of it; None, or empty, is what is not there (yet)."""

    folder: Path
    time: datetime  # UTC, before anything was read
    card: RunCard
    rows: Sequence[EpochRow]  # of the epochs done
    run: Run | None  # None: not finished
    competition: Competition
    assessment: Assessment | None  # of its CSV
    advice: Sequence[Advice]
    images: tuple[Evidence, Processed] | None  # the CSV's evidence, whole, and the images that it is of
    entries: Sequence[Entry]  # all submissions to the competition, oldest first
    predictions: Mapping[str, Entry]  # by the CSV's sha256
    missing: Sequence[str]  # what is not there, and the command that makes it


def gather(folder: Path, card: RunCard, paths: Paths) -> Material:
    """All that is known of the run in `folder`.

    Raises:
        MissingInput, BadData: its files, or the ledger, are damaged.
    """
    now, known, missing = datetime.now(UTC), competition(card.competition), []
    run = Run.open(paths.models, folder.name) if (folder / manifest.NAME).is_file() else None
    if run is None:
        again = commands.of_run(card, folder.name, paths.submissions)
        command = commands.command("train", known.slug, paths, *again)
        missing.append(f"The run is not finished. Unless it is being trained just now, `{command}` goes on with it.")
    lines = ledger.read(paths.submissions / ledger.NAME)
    csvs = local_csvs(paths.submissions, known.slug)
    assessment = images = None
    advice: Sequence[Advice] = ()
    if run is not None:
        try:
            assessment = assess(default_csv(csvs, paths, known.slug, run.name), csvs, lines, known)
            advice = advise(assessment, csvs, lines, paths)
            images = figures.open_images(assessment, paths.processed / known.slug)
        except (MissingInput, BadData) as error:
            missing.append(f"No {'images' if assessment else 'predictions'} are shown: {error}.")
    entries = [entry for entry in ledger.current(lines, known.slug) if entry.ref]
    if not entries:
        missing.append("Nothing has been submitted yet, so no score is known.")
    rows, predictions = runs.read_metrics(folder / runs.METRICS), ledger.predictions(lines, known.slug)
    return Material(folder, now, card, rows, run, known, assessment, advice, images, entries, predictions, missing)


def draw(known: Material) -> dict[str, list[Picture]]:
    """The figures by section: "training", "holdout", "gap" and "hidden"; of what is unknown there are none."""
    sent = [(entry, known.predictions.get(entry.csv_sha256)) for entry in known.entries]
    if known.assessment and known.assessment.sent is None:  # its prediction alone
        draft = known.predictions.get(known.assessment.csv.sidecar.csv_sha256)
        sent += [(draft, draft)] if draft else []
    return {
        "training": figures.training(known.rows, known.card.config) if known.rows else [],
        "holdout": figures.holdout(*known.images) if known.images else [],
        "gap": figures.scores(sent, known.competition.line),
        "hidden": figures.hidden(*known.images) if known.images else [],
    }


def render(known: Material, sections: Mapping[str, Sequence[Picture]]) -> str:
    """The page as HTML, with the figures that `draw` has made."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.filters["percent"] = lambda value: "-" if value is None else f"{value:.2f}%"
    config, summary = known.card.config, summarise(known.card.config.model)
    left = f"{duration(seconds_left(known.rows, config.epochs))} left" if known.rows else "the first has not ended yet"
    return environment.get_template("report.html.j2").render(
        known=known,
        sections=sections,
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        mark=MARK,
        result=known.run.result if known.run else None,
        best=best_row(known.rows) if known.rows else None,
        left=left,
        head=ledger.HEAD,
        submissions=ledger.rows(reversed(known.entries[-NEWEST:]), known.predictions),
        summary=summary,
        limit=PARAMETER_LIMIT,
        memory=[(name, f"{size:.2f}") for name, size in summary.memory.items()],
        layers=HEAD,
        recipe=[(name, str(value)) for name, value in (config.to_dict() | {"model": config.model.name}).items()],
        reproduce=reproduce(known.card, known.folder.name, known.assessment),
        duration=duration,
    )


def reproduce(card: RunCard, name: str, assessment: Assessment | None) -> list[str]:
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
