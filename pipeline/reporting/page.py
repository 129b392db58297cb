"""The page: report.html.j2 filled with what is known, with everything in it, so that one file is all of it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pipeline import commands
from pipeline.config import PARAMETER_LIMIT, Competition, Paths, competition, fingerprint, project_files
from pipeline.console import duration
from pipeline.errors import BadData, MissingInput
from pipeline.gap.assessment import Assessment, assess
from pipeline.model.summary import Summary
from pipeline.recipes import PRESETS, TrainConfig, flag
from pipeline.reporting import figures
from pipeline.reporting.figures import Drawn, Sheet, Tile
from pipeline.store import ledger, runs, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, Run, RunCard, RunResult, absent, best_row, seconds_left
from pipeline.store.submissions import Evidence, LocalCsv
from pipeline.store.submissions import evidence_path as evidence_of

# --- What is known of a run: gathered from its folder, from the CSV that was predicted with it, and from


@dataclass(frozen=True)
class Material:
    """One run and all that is known of it; None, or empty, is what is not there (yet)."""

    name: str
    folder: Path
    card: RunCard
    rows: Sequence[EpochRow]  # of the epochs done
    result: RunResult | None  # None: not finished
    versions: Mapping[str, str]
    competition: Competition
    data: Processed | None
    judged: Assessment | None  # of its CSV
    evidence: Evidence | None  # of its CSV, whole
    entries: Sequence[Entry]  # all submissions to the competition, oldest first
    foretold: Mapping[str, Entry]  # their predictions, by the CSV's sha256
    missing: Sequence[str]  # what is not there, and the command that makes it

    @property
    def own(self) -> Entry | None:
        """The newest submission of its CSV."""
        sha256 = self.judged.csv.sidecar.csv_sha256 if self.judged else None
        return next((entry for entry in reversed(self.entries) if entry.ref and entry.csv_sha256 == sha256), None)


def gather(paths: Paths, name: str | None) -> Material:
    """All that is known of the run `name`; by default of the one that train finished last.

    Raises:
        MissingInput: there is no such run, or none at all.
        BadData: its files, or the ledger, are damaged.
    """
    folder = _folder(paths.models, name)
    card, finished = RunCard.read(folder), Manifest.read(folder)
    run = Run.open(paths.models, folder.name) if finished else None
    known, missing = competition(card.competition), []
    if run is None:
        again = commands.of_run(card, folder.name, paths.submissions)
        command = commands.command("train", card.competition, paths, *again)
        missing.append(f"The run is not finished. Unless it is being trained just now, `{command}` goes on with it.")
    lines = ledger.read(paths.submissions / ledger.NAME)
    csvs = submissions.local_csvs(paths.submissions, card.competition)
    csv, judged, evidence = _csv_of(run, csvs), None, None
    if run is not None and csv is None:
        missing.append(
            f"No answers are shown: `python -m pipeline.predict --run {run.name}` labels the hidden images and "
            "measures the network on test_batch."
        )
    if csv is not None:
        try:
            found = assess(csv, csvs, lines, known)
            judged, evidence = found, found.whole()
        except BadData as error:
            missing.append(f"No prediction is shown: {error}.")
    data, without = _images(paths.processed / known.slug, csv, evidence)
    missing += without
    entries = ledger.current(lines, card.competition)
    if not any(entry.ref for entry in entries):
        missing.append("Nothing has been submitted yet, so no score is known.")
    return Material(
        name=folder.name,
        folder=folder,
        card=card,
        rows=runs.read(folder / runs.METRICS),
        result=run.result if run else None,
        versions=finished.versions if finished else {},
        competition=known,
        data=data,
        judged=judged,
        evidence=evidence,
        entries=[entry for entry in entries if entry.ref],
        foretold=ledger.predictions(lines, card.competition),
        missing=missing,
    )


def identity(known: Material, paths: Paths) -> str:
    """sha256 (hex) of all that a report is made of: equal identity, equal page, but for the time that it tells."""
    files = [known.folder / name for name in (runs.CONFIG, runs.METRICS, runs.RESULT, MANIFEST)]
    files += [paths.processed / known.competition.slug / MANIFEST, paths.submissions / ledger.NAME]
    files += sorted(paths.submissions.glob("*.json"))  # other runs' CSVs count in a prediction
    if known.judged is not None:
        files.append(evidence_of(known.judged.csv.path))
    contents = {str(path): FileRecord.of(path).sha256 for path in files if path.is_file()}
    code = {name: FileRecord.of(path).sha256 for name, path in project_files().items()}
    return fingerprint([contents, code, list(known.missing)])


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
        raise MissingInput(absent(models, name, sorted(path.name for path in begun), None))
    return folder


def _images(folder: Path, csv: LocalCsv | None, evidence: Evidence | None) -> tuple[Processed | None, list[str]]:
    """The images that `csv` answers, or why none can be shown; without one, whether there are any."""
    try:
        if csv is None or evidence is None:
            return Processed.open(folder), []
        return figures.images(csv, evidence, folder), []
    except (MissingInput, BadData) as error:
        return None, [f"No images are shown: {error}."]


def _csv_of(run: Run | None, csvs: Sequence[LocalCsv]) -> LocalCsv | None:
    """The newest CSV predicted with the run's weights: with it alone, or else with others."""
    if run is None:
        return None
    own = [csv for csv in csvs if csv.sidecar.runs.get(run.name) == run.weights_sha256]
    return max(own, key=lambda csv: (len(csv.sidecar.runs) == 1, csv.sidecar.created), default=None)


# --- Numbers as people read them: accuracies to two decimals in per cent, gaps in points, times as h:mm:s


UNKNOWN = "-"
SPELLED = {"teachers": "teacher"}  # where an option has another name than its field


@dataclass(frozen=True)
class Card:
    """One figure of the result row."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Table:
    """Rows of text; the columns in `numbers` (0-based) are aligned to the right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


def per_cent(value: float | None) -> str:
    """94.9529 -> "94.95 %"."""
    return UNKNOWN if value is None else f"{value:.2f} %"


# --- the result row ---------------------------------------------------------------------------------------


def result_row(known: Material, summary: Summary) -> list[Card]:
    """What a person wants to know first."""
    cards = [*_measured(known), *_kaggle(known)]
    over = summary.trainable > PARAMETER_LIMIT
    budget = f"over the {PARAMETER_LIMIT:,} allowed: not submittable" if over else f"of {PARAMETER_LIMIT:,} allowed"
    cards.append(Card("Parameters", f"{summary.trainable:,}", f"trainable, {budget}"))
    if known.result is not None:
        r = known.result
        note = f"{_epochs(r.epochs)}, {r.images_per_second:,.0f} images/s, {r.device}, {r.precision}"
        cards.append(Card("Training", duration(r.seconds), note))
    return cards


def _measured(known: Material) -> list[Card]:
    """Accuracies on labelled images."""
    r = known.result
    if r is None:
        return _so_far(known)
    selected = "selected on this very set: optimistic" if r.optimistic else f"best epoch {r.best_epoch} of {r.epochs}"
    cards = [Card("Validation", per_cent(r.validation_accuracy), f"{r.validation_rows:,} images; {selected}")]
    if not r.optimistic:
        cards.insert(0, Card("Local", per_cent(r.test_accuracy), f"test_batch, {r.test_rows:,} images; one view each"))
    sidecar = known.judged.csv.sidecar if known.judged else None
    if sidecar is not None and abs(sidecar.test_accuracy - r.test_accuracy) >= 0.005:
        how = ", ".join(
            text
            for text, true in (
                (f"{len(sidecar.runs)} runs", len(sidecar.runs) > 1),
                (f"--tta {sidecar.tta}", sidecar.tta != "none"),
            )
            if true
        )
        cards.append(Card("Local, as submitted", per_cent(sidecar.test_accuracy), f"test_batch; {how or 'the CSV'}"))
    return cards


def _so_far(known: Material) -> list[Card]:
    if not known.rows:
        return [Card("Progress", f"0 of {_epochs(known.card.config.epochs)}", "the first has not ended yet")]
    done, total, best = len(known.rows), known.card.config.epochs, best_row(known.rows)
    left = seconds_left(known.rows, total)
    return [
        Card("Validation so far", per_cent(best.validation_accuracy), f"epoch {best.epoch}, the best yet"),
        Card("Progress", f"{done} of {_epochs(total)}", f"about {duration(left)} of training to go"),
    ]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count:,} epochs"


def _kaggle(known: Material) -> list[Card]:
    """What Kaggle says, or is expected to say."""
    cards = []
    if known.judged is not None:
        forecast = known.judged.forecast
        low, high = forecast.interval
        doubt = "" if forecast.reliable else "; UNRELIABLE"
        note = f"90 %: {100 * low:.1f} to {100 * high:.1f} %, by {forecast.by}{doubt}"
        cards.append(Card("Expected on Kaggle", f"{100 * forecast.predicted:.1f} %", note))
    own = known.own
    if own is not None:
        note = f"private {per_cent(own.private)}; ref {own.ref}, {own.status}"
        cards.append(Card("Kaggle, public", per_cent(own.public), note))
        if own.gap_public is not None:
            cards.append(Card("Gap", f"{own.gap_public:.2f} points", "local minus public"))
    return cards


# --- tables -----------------------------------------------------------------------------------------------


def network(summary: Summary) -> Table:
    """The network, part by part, and what it costs."""
    rows = [
        (part.name, str(part.layers), _shape(part.output), f"{part.parameters:,}", f"{part.macs / 1e6:.1f}")
        for part in summary.parts
    ]
    layers = sum(part.layers for part in summary.parts)
    rows.append(("total", str(layers), "", f"{summary.parameters:,}", f"{summary.macs / 1e6:.1f}"))
    head = ("part", "layers", "output", "parameters", "MACs, M")
    return Table("The network, for one image", head, rows, (1, 2, 3, 4))


def memory(summary: Summary) -> Table:
    """Its memory, as the paper counts it."""
    rows = (
        ("input", f"{summary.input_mb:.2f}"),
        ("forward and backward", f"{summary.forward_backward_mb:.2f}"),
        ("parameters", f"{summary.parameters_mb:.2f}"),
        ("total", f"{summary.total_mb:.2f}"),
    )
    return Table("Memory for one image, as torchsummary counts it", ("what", "MB"), rows, (1,))


def layers(summary: Summary) -> Table:
    """Every layer."""
    rows = [
        (layer.name, layer.kind, _shape(layer.output), f"{layer.parameters:,}", f"{layer.macs:,}")
        for layer in summary.layers
    ]
    return Table("Every layer", ("layer", "kind", "output", "parameters", "MACs"), rows, (2, 3, 4))


def _shape(output: Sequence[int]) -> str:
    return " × ".join(map(str, output))  # noqa: RUF001 - the sign


def submission_table(entries: Sequence[Entry], foretold: Mapping[str, Entry], newest: int) -> Table:
    """The newest submissions, a line each, the last first."""
    rows = [
        (
            str(entry.ref),
            _number(entry.local_test),
            _predicted(foretold.get(entry.csv_sha256)),
            _number(entry.public),
            _number(entry.private),
            _number(entry.gap_public),
            entry.status,
            entry.run or UNKNOWN,
            entry.time[:16].replace("T", " "),
        )
        for entry in reversed(entries[-newest:])
    ]
    head = ("ref", "local", "predicted (90 %)", "public", "private", "gap", "status", "run", "time (UTC)")
    caption = "Submissions, the newest first; accuracies in per cent, the gap in points"
    return Table(caption, head, rows, (1, 2, 3, 4, 5))


def _predicted(entry: Entry | None) -> str:
    if entry is None or entry.predicted is None:
        return UNKNOWN
    if entry.predicted_low is None or entry.predicted_high is None:
        return f"{entry.predicted:.1f}"
    return f"{entry.predicted:.1f} ({entry.predicted_low:.1f} to {entry.predicted_high:.1f})"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def methods(known: Material) -> Table | None:
    """What each method expects, or why it does not."""
    if known.judged is None:
        return None
    forecast = known.judged.forecast
    rows = [
        (name, f"{100 * value:.1f} %", "predicts" if name == forecast.by else "")
        for name, value in forecast.methods.items()
    ]
    rows += [(name, UNKNOWN, reason) for name, reason in forecast.refused.items()]
    return Table("What each method expects of the public score", ("method", "score", ""), rows, (1,))


def recipe(config: TrainConfig) -> Table:
    """Every option of the run, and where it is not the preset's."""
    values, rows = config.to_dict(), []
    preset = PRESETS[config.preset].to_dict() if config.preset in PRESETS else values  # else of another version
    for name, value in values.items():
        spelled, usual = flag(SPELLED.get(name, name)), preset[name]
        if name == "model":
            rows.append((spelled, str(value["name"]), "" if value == usual else "not the preset's"))
        else:
            rows.append((spelled, _brief(value), "" if value == usual else f"preset: {_brief(usual)}"))
    return Table("Options of the run", ("option", "value", "changed"), rows)


def _brief(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if value != "" else "none"


HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figures:
    """The figures and sheets of each section; empty where there is nothing to draw."""

    training: Sequence[Drawn] = ()
    answers: Sequence[Drawn] = ()  # on labelled images
    hidden: Sequence[Drawn] = ()
    scores: Sequence[Drawn] = ()
    sheets: Mapping[str, Sheet] = field(default_factory=dict)  # by name

    def all(self) -> list[Drawn]:
        """All figures, in the order of the page."""
        return [*self.training, *self.answers, *self.scores, *self.hidden]


def render(
    known: Material, summary: Summary, figures: Figures, reproduce: Sequence[str], now: datetime, newest: int,
    marks: str,
) -> str:  # fmt: skip
    """The page as HTML.

    Args:
        known: the run.
        summary: its network's costs.
        figures: what was drawn of it.
        reproduce: the commands that make the run and its CSV again.
        now: the time that the page tells, UTC.
        newest: how many submissions the table shows.
        marks: HTML for its head, by which it is known again.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    environment.filters |= {"svg": _svg, "uri": _uri, "alt": _alt, "code": _code}
    judged = known.judged
    return environment.get_template("report.html.j2").render(
        known=known,
        marks=Markup(marks),
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        now=now.strftime("%Y-%m-%d %H:%M UTC"),
        cards=result_row(known, summary),
        figures=figures,
        network=network(summary),
        memory=memory(summary),
        layers=layers(summary),
        submissions=submission_table(known.entries, known.foretold, newest) if known.entries else None,
        methods=methods(known),
        accuracy=_accuracy(known.evidence),
        diagnosis=judged.diagnosis if judged else None,
        doubts=list(judged.forecast.doubts) if judged else [],
        advice=[str(step) for step in judged.advice] if judged else [],
        recipe=recipe(known.card.config),
        reproduce=reproduce,
    )


def _accuracy(evidence: Evidence | None) -> float | None:
    """Of the answers on test_batch: one view or several, of one network or several, as for the CSV."""
    return None if evidence is None else float((evidence.test.labels == evidence.test.known_truth).mean())


def _unbroken(value: Any) -> Any:
    """A number and its per cent sign stay on one line."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _svg(drawn: Drawn) -> Any:
    return Markup(figures.inline_svg(drawn))


def _uri(image: NDArray[Any]) -> str:
    """The image (32, 32, 3) as a PNG in a data: address; the browser enlarges it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _code(text: str) -> Markup:
    """What stands in backticks as <code>."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


def _alt(tile: Tile) -> str:
    return ", ".join(tile.lines)
