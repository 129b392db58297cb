"""The report's page: report.html.j2 filled with what is known of a run.  One HTML file holds everything it shows."""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from pipeline import commands
from pipeline.config import PARAMETER_LIMIT, Competition, Paths, competition
from pipeline.console import duration
from pipeline.errors import BadData, MissingInput
from pipeline.gap.assessment import Assessment, assess
from pipeline.gap.forecast import Forecast
from pipeline.model.summary import HEAD, Summary, shape
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.reporting import figures
from pipeline.reporting.figures import Picture
from pipeline.store import ledger, manifest, runs
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, Run, RunCard, RunResult, best_row, seconds_left
from pipeline.store.submissions import Evidence, LocalCsv, local_csvs

HERE = Path(__file__).parent
MARK = "pipeline.report"  # the generator that the page's head names
NEWEST = 20  # submissions in the table
UNKNOWN = "-"


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
    images: tuple[Evidence, Processed] | None  # the CSV's evidence, whole, and the images that it is of
    entries: Sequence[Entry]  # all submissions to the competition, oldest first
    predictions: Mapping[str, Entry]  # by the CSV's sha256
    missing: Sequence[str]  # what is not there, and the command that makes it

    @property
    def own(self) -> Entry | None:
        """The newest submission of its CSV."""
        sha256 = self.assessment.csv.sidecar.csv_sha256 if self.assessment else None
        return next((entry for entry in reversed(self.entries) if entry.csv_sha256 == sha256), None)


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
    csv, assessment, images = _newest_csv(run, csvs), None, None
    if csv is not None:
        try:
            assessment = assess(csv, csvs, lines, known)
            evidence = assessment.whole()
            images = evidence, figures.open_images(csv, evidence, paths.processed / known.slug)
        except (MissingInput, BadData) as error:
            missing.append(f"No {'images are' if assessment else 'prediction is'} shown: {error}.")
    elif run is not None:
        missing.append(f"No predictions are shown: `python -m pipeline.predict --run {run.name}` makes them.")
    entries = [entry for entry in ledger.current(lines, known.slug) if entry.ref]
    if not entries:
        missing.append("Nothing has been submitted yet, so no score is known.")
    return Material(
        folder=folder,
        time=now,
        card=card,
        rows=runs.read_metrics(folder / runs.METRICS),
        run=run,
        competition=known,
        assessment=assessment,
        images=images,
        entries=entries,
        predictions=ledger.predictions(lines, known.slug),
        missing=missing,
    )


def _newest_csv(run: Run | None, csvs: Sequence[LocalCsv]) -> LocalCsv | None:
    """The newest CSV predicted with the run's weights: with it alone, or else with others."""
    own = [csv for csv in csvs if run and csv.sidecar.runs.get(run.name) == run.weights_sha256]
    return max(own, key=lambda csv: (len(csv.sidecar.runs) == 1, csv.sidecar.created), default=None)


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


@dataclass(frozen=True)
class Table:
    """Rows of text; the columns in `left` (0-based) are aligned to the left."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[int] = (0,)


def render(known: Material, summary: Summary, sections: Mapping[str, Sequence[Picture]]) -> str:
    """The page as HTML.

    Args:
        known: the run.
        summary: its model's costs.
        sections: the figures of "training", "holdout", "gap" and "test"; of what is unknown there are none.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    assessment = known.assessment
    return environment.get_template("report.html.j2").render(
        known=known,
        sections=sections,
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        mark=MARK,
        reproduce=reproduce(known.card, known.folder.name, assessment),
        now=known.time.strftime("%Y-%m-%d %H:%M UTC"),
        cards=cards(known, summary),
        assessment=assessment,
        methods=methods(assessment.forecast) if assessment else None,
        submissions=submissions(known.entries, known.predictions) if known.entries else None,
        tables=[model(summary), memory(summary)],
        details=[Table("Every layer", HEAD, summary.rows, left=(0, 1)), recipe(known.card.config)],
    )


# --- what a reader wants to know first --------------------------------------------------------------------

Card = tuple[str, str, str]  # label, value, note


def cards(known: Material, summary: Summary) -> list[Card]:
    """The first row of the page."""
    result = known.run.result if known.run else None
    found = _finished(result, known.assessment) if result else _unfinished(known.rows, known.card.config.epochs)
    if known.assessment is not None:
        forecast = known.assessment.forecast
        low, high = forecast.interval
        doubt = "" if forecast.reliable else "; UNRELIABLE"
        note = f"90%: {100 * low:.1f} to {100 * high:.1f}%, by {forecast.by}{doubt}"
        found.append(("Predicted on Kaggle", f"{100 * forecast.predicted:.1f}%", note))
    if (own := known.own) is not None:
        note = f"private {_percent(own.private)}; ref {own.ref}, {own.status}"
        found.append(("Kaggle, public", _percent(own.public), note))
        if own.gap_public is not None:
            found.append(("Gap", f"{own.gap_public:.2f} points", "local minus public"))
    over = summary.trainable > PARAMETER_LIMIT
    limit = f"over the limit of {PARAMETER_LIMIT:,}: not submittable" if over else f"of {PARAMETER_LIMIT:,} allowed"
    found.append(("Parameters", f"{summary.trainable:,}", f"trainable, {limit}"))
    if result is not None:
        speed = f"{result.epochs:,} epochs, {result.images_per_second:,.0f} images/s"
        found.append(("Training", duration(result.seconds), f"{speed}, {result.device}, {result.precision}"))
    return found


def _finished(result: RunResult, assessment: Assessment | None) -> list[Card]:
    """Accuracies on labelled images."""
    validation, images = _percent(result.validation_accuracy), f"{result.validation_rows:,} images"
    if result.optimistic:
        found = [("Validation", validation, f"{images}; selected on this very set: optimistic")]
    else:
        found = [
            ("Local", _percent(result.test_accuracy), f"test_batch, {result.test_rows:,} images; no TTA"),
            ("Validation", validation, f"{images}; best epoch {result.best_epoch} of {result.epochs}"),
        ]
    sidecar = assessment.csv.sidecar if assessment else None
    if sidecar is not None and abs(sidecar.test_accuracy - result.test_accuracy) >= 0.005:
        note = f"test_batch; runs: {len(sidecar.runs)}, --tta {sidecar.tta}, --adapt {sidecar.adapt}"
        found.append(("Local, as submitted", _percent(sidecar.test_accuracy), note))
    return found


def _unfinished(rows: Sequence[EpochRow], epochs: int) -> list[Card]:
    if not rows:
        return [("Progress", f"0 of {epochs} epochs", "the first has not ended yet")]
    best, left = best_row(rows), duration(seconds_left(rows, epochs))
    return [
        ("Validation so far", _percent(best.validation_accuracy), f"epoch {best.epoch}, the best yet"),
        ("Progress", f"{len(rows)} of {epochs} epochs", f"{left} left"),
    ]


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}%"


# --- tables -----------------------------------------------------------------------------------------------


def model(summary: Summary) -> Table:
    """The model part by part, and what it costs."""
    rows = [
        (part.name, str(part.layers), shape(part.output), f"{part.parameters:,}", f"{part.macs / 1e6:.1f}")
        for part in summary.parts
    ]
    layers = sum(part.layers for part in summary.parts)
    rows.append(("total", str(layers), "", f"{summary.parameters:,}", f"{summary.macs / 1e6:.1f}"))
    return Table("The model, for one image", ("part", "layers", "output", "parameters", "MACs, M"), rows)


def memory(summary: Summary) -> Table:
    """Its memory, as the paper counts it."""
    rows = [(name, f"{size:.2f}") for name, size in summary.memory.items()]
    return Table("Memory for one image, as torchsummary counts it", ("what", "MB"), rows)


def submissions(entries: Sequence[Entry], predictions: Mapping[str, Entry]) -> Table:
    """The NEWEST submissions, the last first."""
    rows = ledger.rows(reversed(entries[-NEWEST:]), predictions)
    caption = "Submissions, the newest first; accuracies in %, the gap in points"
    return Table(caption, ledger.HEAD, rows, left=(1, 2, 9))


def methods(forecast: Forecast) -> Table:
    """What each method predicts of the public score, or why it does not."""
    rows = [(name, f"{100 * value:.1f}%", "the prediction" * (name == forecast.by))
            for name, value in forecast.methods.items()]  # fmt: skip
    rows += [(name, UNKNOWN, reason) for name, reason in forecast.refused.items()]
    return Table("The public score by each method", ("method", "score", ""), rows, left=(0, 2))


def recipe(config: TrainConfig) -> Table:
    """Every field of the recipe, and the preset's where that is another."""
    values = config.to_dict()
    preset = PRESETS[config.preset].to_dict() if config.preset in PRESETS else values  # else of another version
    rows = [
        (name, _text(value), "" if value == preset[name] else f"preset: {_text(preset[name])}")
        for name, value in values.items()
    ]
    return Table("The recipe, as in config.json", ("field", "value", "changed"), rows, left=(0, 1, 2))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # the model
        return f"{value['name']}, se {value['se']}"
    return (", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)) or "none"
