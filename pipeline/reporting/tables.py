"""Numbers as people read them: accuracies to two decimals in per cent, gaps in points, times as h:mm:ss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import PARAMETER_BUDGET
from pipeline.gap.ledger import Entry
from pipeline.model.summary import Summary
from pipeline.progress import duration
from pipeline.recipes import PRESETS, TrainConfig, flag
from pipeline.reporting.material import Material
from pipeline.store.epochs import best_row, seconds_left

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
    over = summary.trainable > PARAMETER_BUDGET
    budget = f"over the {PARAMETER_BUDGET:,} allowed: not submittable" if over else f"of {PARAMETER_BUDGET:,} allowed"
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


def submissions(entries: Sequence[Entry], foretold: Mapping[str, Entry], newest: int) -> Table:
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
