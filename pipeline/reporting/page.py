"""The report's page: report.html.j2 filled with a run's data, in one self-contained HTML file."""

import base64
import re
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
from pipeline.gap.assessment import Assessment, assess, prediction_error
from pipeline.reporting import figures
from pipeline.reporting.figures import Picture
from pipeline.store import ledger, manifest, overview, runs
from pipeline.store.ledger import Entry
from pipeline.store.overview import RunState
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, Run, RunCard
from pipeline.store.submissions import Evidence, default_csv, local_csvs

HERE = Path(__file__).parent
NEWEST = 20  # rows in a table
DEFAULT_NAME = r"\w+-(kaggle-)?[0-9a-f]{8}(-s\d+)?"  # of a run that was not given one
SUBMISSION_HEAD = ("run", "public", "private", "holdout", "gap", "predicted", "status", "time (UTC)", "ref")


@dataclass(frozen=True)
class Material:
    """One run and everything about it; None or empty: missing (yet)."""

    folder: Path
    time: datetime  # UTC, before anything was read
    card: RunCard
    rows: Sequence[EpochRow]  # of the finished epochs
    run: Run | None  # None: not finished
    state: RunState
    states: Sequence[RunState]  # of all runs of the competition, the newest first
    competition: Competition
    assessment: Assessment | None  # of its CSV
    advice: Sequence[Advice]
    images: tuple[Evidence, Processed] | None  # the CSV's saved probabilities, all of them, and the images
    entries: Sequence[Entry]  # all submissions to the competition, oldest first
    predictions: Mapping[str, Entry]  # by the CSV's sha256
    missing: Sequence[str]  # what is missing, and the command that makes it


def gather(folder: Path, card: RunCard, paths: Paths) -> Material:
    """Everything about the run in `folder`; MissingInput or BadData if its files or the ledger are damaged."""
    now, known, missing = datetime.now(UTC), competition(card.competition), []
    run = Run.open(paths.models, folder.name) if (folder / manifest.NAME).is_file() else None
    if run is None:
        missing.append(f"The run is not finished{_resumed(card, folder.name, paths)}.")
    lines = ledger.read(paths.submissions / ledger.NAME)
    csvs = local_csvs(paths.submissions, known.slug)
    assessment = images = None
    advice: Sequence[Advice] = ()
    if run is not None:
        try:
            assessment = assess(default_csv(csvs, paths, known.slug, run.name), csvs, lines, known)
            advice = advise(assessment, csvs, lines, paths)
            images = figures.open_images(assessment, paths)
        except (MissingInput, BadData) as error:
            missing.append(f"No {'images' if assessment else 'predictions'} are shown: {error}.")
    entries = [entry for entry in ledger.current(lines, known.slug) if entry.ref]
    rows, predictions = runs.read_metrics(folder / runs.METRICS), ledger.predictions(lines, known.slug)
    states, _ = overview.run_states(paths.models, known.slug, card.data, csvs, lines)
    state = next(state for state in states if state.name == folder.name)
    return Material(
        folder, now, card, rows, run, state, states, known, assessment, advice, images, entries, predictions, missing
    )


def _resumed(card: RunCard, name: str, paths: Paths) -> str:
    """How an unfinished run is resumed, or why it can't be."""
    if card.trial:
        return f"; it is a trial: the command of sweep {card.trial} resumes it"
    try:
        options = runs.options(card, name)
    except BadData as error:
        return f", and {error}"
    return f". Unless it is being trained, `{commands.command('train', card.competition, paths, *options)}` resumes it"


def draw(known: Material) -> dict[str, list[Picture]]:
    """The figures by section: "gap", "training", "holdout" and "hidden", as far as known."""
    sent = [(entry, known.predictions.get(entry.csv_sha256)) for entry in known.entries]
    if known.assessment and known.assessment.sent is None:  # its prediction alone
        draft = known.predictions.get(known.assessment.csv.sidecar.csv_sha256)
        sent += [(draft, draft)] if draft else []
    return {
        "gap": figures.scores(sent, known.competition.line),
        "training": figures.training(known.rows, known.card.config) if known.rows else [],
        "holdout": figures.holdout(*known.images) if known.images else [],
        "hidden": figures.hidden(*known.images) if known.images else [],
    }


def render(known: Material, sections: Mapping[str, Sequence[Picture]]) -> str:
    """The page as HTML, with the figures of `draw`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    config, state = known.card.config, known.state
    newest = [each for each in known.states if not each.trial][:NEWEST]
    return environment.get_template("report.html.j2").render(
        known=known,
        sections=sections,
        css=(HERE / "report.css").read_text(encoding="utf-8"),
        title=title(known),
        subtitle=subtitle(known),
        tiles=_scores(known.assessment) if known.assessment else _unscored(known),
        submission_head=SUBMISSION_HEAD,
        submissions=_submissions(known),
        run_head=overview.RUN_HEAD,
        runs=[(each.row, each is state) for each in known.states if each in newest or each is state],
        recipe=[((k, str(v)), False) for k, v in (config.to_dict() | {"model": config.model.name}).items()],
        reproduce=reproduce(known.card, known.folder.name, known.assessment),
        duration=duration,
    )


def title(known: Material) -> str:
    """The run's preset, or its given name; best or newest; its date."""
    state, name = known.state, known.folder.name
    day = datetime.fromisoformat(state.changed)
    several = sum(each.state == "finished" and not each.trial for each in known.states)
    marks = [mark for mark, holds in (("best", state.best), ("newest", state.latest)) if holds and several > 1]
    return ", ".join([
        f"Preset {state.preset}" if re.fullmatch(DEFAULT_NAME, name) else f"{name} ({state.preset})",
        *([f"{' and '.join(marks)} of {several} runs"] if marks else []),
        f"{day.day} {day:%b %Y}",
    ])  # fmt: skip


def subtitle(known: Material) -> str:
    """Model, parameters, epochs, learning rate and batch."""
    config = known.card.config
    parameters = config.model.trainable_parameters
    over = "" if parameters <= PARAMETER_LIMIT else f" (over the limit of {PARAMETER_LIMIT:,}: not submittable)"
    return (
        f"model {config.model.name}, {parameters:,} parameters{over}, {config.epochs:,} epochs, "
        f"learning rate {config.learning_rate:g}, batch {config.batch_size:,}, seed {config.seed}"
    )


Tile = tuple[str, str, str]  # what, its value, a note


def _holdout(accuracy: float, optimistic: bool) -> Tile:
    return "Holdout", f"{accuracy:.2f}%", "optimistic: the epoch was selected on it" if optimistic else "test_batch"


def _waiting(sent: Entry | None) -> str:
    """Why there is no score."""
    if sent is None:
        return "not submitted"
    states = {ledger.ERROR: "Kaggle could not score it", ledger.COMPLETE: "Kaggle gives no score"}
    return states.get(sent.status, "waiting for the score")


def _scores(assessed: Assessment) -> list[Tile]:
    """Public, private, holdout and gap of the run's CSV; predicted if there is no score yet."""
    sidecar, line, sent = assessed.csv.sidecar, assessed.predicted, assessed.sent
    holdout = _holdout(sidecar.test_accuracy, sidecar.validation_set == "test_batch")
    predicted = line.predicted or 0 if line else 0
    interval = f"{line.predicted_low:.0f}\u2011{line.predicted_high:.0f}" if line else ""  # no break in it
    if sent is None or sent.public is None:
        doubts = "".join(f"; {doubt}" for doubt in assessed.doubts[:1])
        return [
            ("Public, predicted", f"{predicted:.1f}%", f"90% interval {interval}{doubts}"),
            ("Private", "-", _waiting(sent)),
            holdout,
            ("Gap, predicted", f"{sidecar.test_accuracy - predicted:.1f}", "points, holdout minus public"),
        ]
    error = prediction_error(line, sent) or 0
    off = f"{abs(error):.1f} points too {'high' if error > 0 else 'low'}"
    before = f"predicted {predicted:.1f}% ({interval}), {off}" if line else "not predicted before"
    return [
        ("Public", f"{sent.public:.2f}%", before),
        ("Private", "-" if sent.private is None else f"{sent.private:.2f}%", ""),
        holdout,
        ("Gap", f"{sidecar.test_accuracy - sent.public:.2f}", "points, holdout minus public"),
    ]


def _unscored(known: Material) -> list[Tile]:
    """The accuracies of a run without predictions."""
    state, result = known.state, known.run and known.run.result
    best = "-" if state.validation is None else f"{state.validation:.2f}%"
    if result:
        return [_holdout(result.test_accuracy, result.optimistic), ("Validation", best, "best epoch")]
    left = "" if state.seconds_left is None else f"; {duration(state.seconds_left)} left"
    progress = ("Progress", f"{state.epoch} of {state.epochs}", f"epochs{left}")
    return [("Validation so far", best, "best epoch"), progress]


def _submissions(known: Material) -> list[tuple[Sequence[str], bool]]:
    """The newest submissions, newest first, and whether each is of the page's CSV."""
    own = known.assessment and known.assessment.csv.sidecar.csv_sha256
    shown, columns = known.entries[: -NEWEST - 1 : -1], [ledger.HEAD.index(name) for name in SUBMISSION_HEAD]
    rows = ledger.rows(shown, known.predictions)
    return [([row[k] for k in columns], e.csv_sha256 == own) for row, e in zip(rows, shown, strict=True)]


def reproduce(card: RunCard, name: str, assessment: Assessment | None) -> list[str]:
    """The commands that reproduce the run and its CSV; for a recipe of another version, why there are none."""
    again, how = f"{name}-again", []
    names = [again]
    try:
        recipe = commands.in_full(card.config)
    except BadData as error:
        return [f"# {error}"]
    if assessment is not None:
        sidecar = assessment.csv.sidecar
        names = [again if run == name else run for run in sidecar.weights]
        how = ["--tta", sidecar.tta, "--adapt", sidecar.adapt]
    stages = (("download",), ("preprocess",), ("train", *recipe, "--run", again), ("predict", "--run", *names, *how))
    return [commands.command(stage, card.competition, Paths(), *options) for stage, *options in stages]
