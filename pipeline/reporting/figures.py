"""What the network gets wrong on test_batch, and what it says of the hidden images."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.config import PublishedLine
from pipeline.errors import BadData, printable
from pipeline.gap import shift
from pipeline.gap.diagnosis import Diagnosis
from pipeline.gap.forecast import on_line
from pipeline.recipes import TrainConfig
from pipeline.store import atomic
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, best_row
from pipeline.store.submissions import Evidence, LocalCsv, Outputs, again
from pipeline.training.optim import learning_rate

# --- Images that a person should look at, with what the network says of them; and a sheet of them as a pi


if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 8
MOST = 24  # images on a sheet
WIDEST = 20  # characters of a line, where a sheet is a picture
HIDDEN, LOCAL = "#c2410c", "#1d4ed8"  # one colour for each set, in all pictures


@dataclass(frozen=True)
class Tile:
    """One image and what is said of it, in two short lines."""

    image: NDArray[np.uint8]  # (32, 32, 3)
    lines: tuple[str, str]


@dataclass(frozen=True)
class Sheet:
    """Tiles in rows of COLUMNS; each may have another below it that belongs to it."""

    name: str
    title: str
    tiles: Sequence[Tile]
    below: Sequence[Tile] = ()  # as many as tiles, or none


def images(csv: LocalCsv, evidence: Evidence, folder: Path) -> Processed:
    """The images in `folder`, if they are those that the answers of `csv` are of.

    Raises:
        MissingInput: preprocess has not run.
        BadData: they are others by now, or damaged.
    """
    data, card = Processed.open(folder), csv.sidecar
    truth = evidence.test.known_truth
    if data.hidden_fingerprint != card.hidden or not np.array_equal(data.array("test_labels"), truth):
        raise BadData(f"{folder} holds other images than {csv.path} is of: restore it, or {again(csv.path, card.run)}")
    return data


def foreign(evidence: Evidence, data: Processed) -> Sheet:
    """The most foreign of the hidden images whose features were looked at."""
    rows = evidence.hidden_rows[np.argsort(-evidence.ood_scores, kind="stable")]
    return _hidden("foreign", "Hidden images least like labelled ones", rows[:MOST], evidence, data)


def uncertain(evidence: Evidence, data: Processed) -> Sheet:
    """The hidden images of the least confidence."""
    rows = np.argsort(evidence.hidden.probabilities.max(axis=1), kind="stable")
    return _hidden("uncertain", "Hidden images that the network is least sure of", rows[:MOST], evidence, data)


def mistakes(evidence: Evidence, data: Processed) -> Sheet:
    """The most confident of the wrong answers on test_batch; fewer, or none, where there are no more."""
    said, truth, names = evidence.test, evidence.test.known_truth, data.class_names
    confidence = said.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    rows = order[said.labels[order] != truth[order]][:MOST]
    tiles = [
        Tile(image, (f"{names[said.labels[row]]} {_per_cent(confidence[row])}", f"is {names[truth[row]]}"))
        for row, image in zip(rows.tolist(), data.array("test_images")[rows], strict=True)
    ]
    return Sheet("mistakes", "Mistakes that the network is surest of", tiles)


KINDS = (mistakes, uncertain, foreign)


def _hidden(name: str, title: str, rows: NDArray[np.int64], evidence: Evidence, data: Processed) -> Sheet:
    images = np.asarray(data.array("hidden_images")[rows])
    near, correlations = shift.nearest(images, data.array("train_images"))
    names, ids, labels = data.class_names, data.array("hidden_ids"), data.array("train_labels")
    probabilities = evidence.hidden.probabilities[rows]
    tiles = [
        Tile(image, (f"{names[p.argmax()]} {_per_cent(p.max())}", f"id {ids[row]}"))
        for row, image, p in zip(rows.tolist(), images, probabilities, strict=True)
    ]
    below = [
        Tile(data.array("train_images")[row], (names[labels[row]], f"r {correlation:.2f}"))
        for row, correlation in zip(near.tolist(), correlations.tolist(), strict=True)
    ]
    return Sheet(name, title, tiles, below)


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def draw_contact_sheets(sheet: Sheet) -> "Figure":
    """The sheet as a picture."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second that most commands need not take

    layers = 2 if sheet.below else 1
    lines = max(-(-len(sheet.tiles) // COLUMNS), 1)
    height = lines * layers * 1.6 + 0.6  # inches
    figure = Figure(figsize=(COLUMNS * 1.35, height))
    title = f"{sheet.title}; below each the training image it resembles most" if sheet.below else sheet.title
    figure.suptitle(title, fontsize=12, y=1 - 0.1 / height, va="top")
    # Places are given, and there are no ticks: a layout that is looked for takes seconds.
    grid = figure.subplots(
        layers * lines, COLUMNS, squeeze=False, subplot_kw={"xticks": [], "yticks": []},
        gridspec_kw={"left": 0.02, "right": 0.98, "bottom": 0.1 / height, "top": 1 - 0.8 / height,
                     "wspace": 0.1, "hspace": 0.4},
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    for layer, tiles in enumerate((sheet.tiles, sheet.below)):
        for index, tile in enumerate(tiles):
            line, column = divmod(index, COLUMNS)
            axes = grid[layers * line + layer, column]
            axes.imshow(tile.image, interpolation="nearest")
            axes.set_title("\n".join(printable(line, WIDEST) for line in tile.lines), fontsize=8, y=1)
    return figure


# --- Class names in pictures: they come from the download, so they may be long, in any script, or full of


LONGEST = 12  # characters that an axis has room for


def short(names: Sequence[str]) -> list[str]:
    """The names, cut to what fits beside an axis."""
    return [printable(name, LONGEST) for name in names]


@contextmanager
def plain() -> Iterator[None]:
    """Within the block matplotlib takes text as it is, without formulas between dollar signs."""
    import matplotlib as mpl  # noqa: PLC0415 - a second that most commands need not take

    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        # In a page the reader's fonts have it; in a PNG a box says enough.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield


# --- One look for all figures: drawn by matplotlib, once as SVG in the page and once as PNG beside it.


INK, MUTED, GRID, TRAIN, PRIVATE = "#1c2128", "#59636e", "#d1d9e0", "#0f766e", "#7e22ce"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", LOCAL: "local", HIDDEN: "hidden", TRAIN: "train", PRIVATE: "private",
}  # fmt: skip
WIDTH = 340  # CSS pixels: what the narrowest of today's phones have beside the page's margins
PNG_SCALE = 2.5  # pixels of the PNG for one CSS pixel

STYLE: Any = {  # matplotlib declares its keys from 3.11 on, as a type of its own
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "figure.dpi": 72,  # so that a point is a CSS pixel
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Drawn:
    """A figure, the name of its files, its heading, and what it shows, in words."""

    name: str
    title: str
    alt: str
    figure: Figure


@contextmanager
def style() -> Iterator[None]:
    """Draw in this look."""
    with matplotlib.rc_context(STYLE), plain():
        yield


def blank(height: float = 240) -> Figure:
    """An empty figure, `height` CSS pixels high."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def inline_svg(drawn: Drawn) -> str:
    """The figure as an <svg> element that can stand in a page beside others."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": drawn.name}):
        drawn.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{drawn.name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{drawn.name}-", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    opening = f'<svg role="img" aria-label={quoteattr(drawn.alt)} viewBox="{_view_box(text)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def _view_box(svg: str) -> str:
    found = re.search(r'viewBox="([^"]+)"', svg)
    assert found is not None  # matplotlib always writes one
    return found[1]


def write_png(drawn: Drawn, folder: Path) -> Path:
    """Write the figure as folder/NAME.png, on white.  That the folder appears complete is the caller's to see to."""
    path = folder / f"{drawn.name}.png"
    drawn.figure.axes[0].set_title(drawn.title, loc="left")  # in the page it is text above the figure
    drawn.figure.savefig(path, format="png", dpi=72 * PNG_SCALE, facecolor="white")
    return path


# --- Pictures by which a person judges the hidden images: what is foreign, what is uncertain, how answers


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
LEGEND = 24  # points between axes and title, for the legend


def draw_pictures(evidence: Evidence, found: Diagnosis, data: Processed, folder: Path, name: str) -> list[Path]:
    """Write the three pictures; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with plain():
        pictures = {
            "foreign": draw_contact_sheets(foreign(evidence, data)),
            "uncertain": draw_contact_sheets(uncertain(evidence, data)),
            "answers": _answers(evidence, found, data.class_names),
        }
        return [_write(figure, folder / f"{name}-{kind}.png") for kind, figure in pictures.items()]


def _write(figure: "Figure", path: Path) -> Path:
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def _answers(evidence: Evidence, found: Diagnosis, names: Sequence[str]) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second that most commands need not take

    figure = Figure(figsize=(12, 4.6), layout="constrained")
    figure.suptitle(f"Diagnosis {found.verdict}: {_shortened(found.reason)}", fontsize=11)
    left, middle, right = figure.subplots(1, 3)
    classes(left, evidence, names)
    left.set_title("Classes", pad=LEGEND)
    confidence(middle, evidence)
    middle.set_title("Confidence", pad=LEGEND)
    foreignness(right, evidence)
    right.set_title(f"Foreignness (AUC {found.auc:.2f}; .5: nothing)", pad=LEGEND)
    for axes in (left, middle, right):
        # Above the axes, where there is nothing that it could cover.
        axes.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, borderaxespad=0.2)
    return figure


def classes(axes: "Axes", evidence: Evidence, names: Sequence[str]) -> None:
    """How often each class comes: predicted for the hidden images, and true of test_batch."""
    places = np.arange(len(names))
    for offset, labels, colour, text in (
        (-0.2, evidence.hidden.labels, HIDDEN, "hidden, predicted"),
        (0.2, evidence.test.known_truth.astype(np.int64), LOCAL, "test_batch, true"),
    ):
        shares = 100 * np.bincount(labels, minlength=len(names)) / len(labels)
        axes.bar(places + offset, shares, 0.4, color=colour, label=text)
    axes.set_xticks(places, short(names), rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("images, %")


def confidence(axes: "Axes", evidence: Evidence) -> None:
    """The share of images below each confidence."""
    for said, colour, text in ((evidence.hidden, HIDDEN, "hidden"), (evidence.test, LOCAL, "test_batch")):
        sure = np.sort(said.probabilities.max(axis=1))
        axes.plot(sure, 100 * np.arange(1, len(sure) + 1) / len(sure), color=colour, label=text)
    axes.set_xlabel("largest probability, before calibration")
    axes.set_ylabel("images below, %")


def foreignness(axes: "Axes", evidence: Evidence) -> None:
    """How unlike labelled images the hidden ones of the sample are."""
    axes.hist(evidence.ood_scores, 30, color=HIDDEN, label="hidden")
    axes.axvline(0, color="black", linewidth=1, label="as likely labelled as hidden")
    axes.set_xlabel("score of a classifier, labelled against hidden")
    axes.set_ylabel("images of the sample")


def _shortened(text: str, longest: int = 110) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


DEEPEST = 0.45  # opacity of the strongest colour: text on it stays readable in both schemes


def labelled(evidence: Evidence, names: Sequence[str]) -> list[Drawn]:
    """The figures of test_batch."""
    return [_confusion(evidence.test, names), _by_class(evidence.test, names)]


def hidden(evidence: Evidence, names: Sequence[str]) -> list[Drawn]:
    """The figures of the hidden images."""
    return [_classes(evidence, names), _confidence(evidence)]


def confusion(said: Outputs, classes: int) -> NDArray[np.int64]:
    """How many images of each true class (rows) got each label (columns)."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (said.known_truth, said.labels), 1)
    return table


def _confusion(said: Outputs, names: Sequence[str]) -> Drawn:
    counts = confusion(said, len(names))
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    off = shares - np.diag(np.diag(shares))
    figure = blank(370)
    axes = figure.subplots()
    for true, given in np.ndindex(shares.shape):
        share, right = shares[true, given], true == given
        strength = share / 100 if right else share / max(off.max(), 1)
        axes.add_patch(
            Rectangle((given - 0.5, true - 0.5), 1, 1, color=LOCAL if right else HIDDEN, linewidth=0,
                      alpha=DEEPEST * float(strength))
        )  # fmt: skip
        if share >= 0.5:
            axes.text(given, true, f"{share:.0f}", ha="center", va="center", fontsize=11)
    places = range(len(names))
    axes.set_xticks(places, short(names), rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, short(names))
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    true, given = np.unravel_index(off.argmax(), off.shape)
    words = (
        f"Confusion matrix of test_batch, per cent of each true class. Most often confused: {names[true]} taken for "
        f"{names[given]}, {off[true, given]:.1f} %."
    )
    return Drawn("confusion", "Confusion, % of each true class", words, figure)


def _by_class(said: Outputs, names: Sequence[str]) -> Drawn:
    counts = confusion(said, len(names))
    accuracy = 100 * np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    figure = blank(370)
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(places, accuracy, 0.7, color=LOCAL, alpha=DEEPEST)
    for place, value in zip(places.tolist(), accuracy.tolist(), strict=True):
        axes.text(2, place, f"{value:.1f}", va="center", fontsize=12)
    axes.set_yticks(places, short(names))
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xlabel="accuracy on test_batch, %")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    order = np.argsort(accuracy, kind="stable")
    words = "Accuracy of each class on test_batch, worst first: " + ", ".join(
        f"{names[k]} {accuracy[k]:.1f} %" for k in order.tolist()
    )
    return Drawn("classes", "Accuracy by class", words + ".", figure)


def _classes(evidence: Evidence, names: Sequence[str]) -> Drawn:
    figure = blank(280)
    axes = figure.subplots()
    classes(axes, evidence, names)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.2, columnspacing=1.2)
    shares = 100 * np.bincount(evidence.hidden.labels, minlength=len(names)) / len(evidence.hidden)
    words = "Share of each class among the labels of the hidden images: " + ", ".join(
        f"{name} {share:.1f} %" for name, share in zip(names, shares.tolist(), strict=True)
    )
    return Drawn("labels", "Classes of the hidden images", words + ".", figure)


def _confidence(evidence: Evidence) -> Drawn:
    figure = blank(280)
    axes = figure.subplots()
    confidence(axes, evidence)
    axes.set_xlabel("largest probability")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    hidden, test = (
        100 * float(np.mean(said.probabilities.max(axis=1) < 0.5)) for said in (evidence.hidden, evidence.test)
    )
    words = (
        f"Share of images below each confidence. Below one half are {hidden:.1f} % of the hidden images and "
        f"{test:.1f} % of test_batch."
    )
    return Drawn("confidence", "Confidence", words, figure)


# --- Local, predicted and scored accuracy: over all submissions, and on the competition's published line.


NEWEST = 20  # submissions that are drawn


@dataclass(frozen=True)
class Point:
    """A CSV's accuracies, in per cent; None: unknown."""

    local: float | None
    predicted: float | None
    low: float | None  # of the 90 % interval
    high: float | None
    public: float | None
    private: float | None


NOTHING = Point(None, None, None, None, None, None)


def points(entries: Sequence[Entry], foretold: Mapping[str, Entry], draft: Entry | None) -> list[Point]:
    """One for each submission of which something is known, oldest first.

    Last comes the prediction of a CSV that has not been submitted, if any.
    """
    found = [_point(entry, foretold.get(entry.csv_sha256)) for entry in entries]
    found += [_point(draft, draft)] if draft is not None else []
    return [point for point in found if point != NOTHING][-NEWEST:]


def _point(entry: Entry, foretold: Entry | None) -> Point:
    guess = (foretold.predicted, foretold.predicted_low, foretold.predicted_high) if foretold else (None, None, None)
    return Point(entry.local_test, *guess, entry.public, entry.private)


def draw_scores(known: Sequence[Point], line: PublishedLine | None) -> list[Drawn]:
    """The two figures; `known` is not empty."""
    return [_by_submission(known), _on_line(known, line)]


def _by_submission(known: Sequence[Point]) -> Drawn:
    figure = blank(280)
    axes = figure.subplots()
    places = np.arange(1, len(known) + 1)
    series = {
        "local": ([p.local for p in known], LOCAL, "o"),
        "public": ([p.public for p in known], HIDDEN, "s"),
        "private": ([p.private for p in known], PRIVATE, "D"),
    }
    for name, (values, colour, marker) in series.items():
        if any(value is not None for value in values):
            axes.plot(places, _numbers(values), color=colour, marker=marker, linewidth=1, label=name)
    _predictions(axes, places.astype(np.float64), known)
    axes.set(xlim=(0.4, len(known) + 0.6), xlabel=_order(known), ylabel="accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    return Drawn("scores", "Local, predicted and scored", f"By submission: {_words(known)}.", figure)


def _order(known: Sequence[Point]) -> str:
    unsent = known[-1].public is None and known[-1].private is None
    return "submission, oldest first" + (" (last: no score)" if unsent else "")


def _on_line(known: Sequence[Point], line: PublishedLine | None) -> Drawn:
    figure = blank(280)
    axes = figure.subplots()
    local = _numbers([p.local for p in known])
    low, high = _limits(known)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="dotted", label="no gap")
    if line is not None:
        grid = np.linspace(low, high, 200)
        axes.plot(grid, [100 * on_line(line, value / 100) for value in grid], color=TRAIN, label="published line")
    for values, colour, marker, name in (
        ([p.public for p in known], HIDDEN, "s", "public"),
        ([p.private for p in known], PRIVATE, "D", "private"),
    ):
        if any(value is not None for value in values):
            axes.plot(local, _numbers(values), color=colour, marker=marker, linestyle="", label=name)
    _predictions(axes, local, known)
    axes.set(xlim=(low, high), xlabel="local accuracy, %", ylabel="score on Kaggle, %")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    words = f"Score against local accuracy: {_words(known)}."
    if line is not None:
        words += " The published line: " + ", ".join(
            f"{value} % locally, {100 * on_line(line, value / 100):.1f} % on Kaggle" for value in (90, 95, 98)
        )
        words += "."
    return Drawn("line", "Score against local accuracy", words, figure)


def _limits(known: Sequence[Point]) -> tuple[float, float]:
    """Of the local accuracies, with room around them: points one beside another would look far apart."""
    local = [p.local for p in known if p.local is not None] or [90.0]
    low, high = min(local), max(local)
    room = max(3.0, (high - low) / 4)
    return max(low - room, 0.0), min(high + room, 100.0)


def _predictions(axes: Axes, places: np.typing.NDArray[np.float64], known: Sequence[Point]) -> None:
    """Predicted scores with their 90 % intervals."""
    guess, low, high = (_numbers([getattr(p, n) for p in known]) for n in ("predicted", "low", "high"))
    if not np.isfinite(guess).any():
        return
    # Below the scores that it foretells.  Whoever edits the ledger can leave a prediction outside its interval.
    reach = np.maximum([guess - low, high - guess], 0)
    axes.errorbar(places, guess, yerr=reach, color=TRAIN, fmt="_", markersize=9, capsize=4,
                  elinewidth=1.5, zorder=1.9, label="predicted, 90 %")  # fmt: skip


def _numbers(values: Sequence[float | None]) -> np.typing.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _words(known: Sequence[Point]) -> str:
    return "; ".join(
        ", ".join(
            f"{name} {value:.2f} %"
            for name, value in (
                ("local", p.local), ("predicted", p.predicted), ("public", p.public), ("private", p.private),
            )
            if value is not None
        )
        for p in known
    )  # fmt: skip


# --- The paper's figures, from metrics.jsonl: the rate's schedule, accuracy and loss by epoch.


FINE = 20  # points of the planned schedule an epoch


def draw_training(rows: Sequence[EpochRow], config: TrainConfig) -> list[Drawn]:
    """The three figures; `rows` may be those of a run that is still being trained, but not empty."""
    return [_rate(rows, config), _accuracy(rows, config), _loss(rows, config)]


def _rate(rows: Sequence[EpochRow], config: TrainConfig) -> Drawn:
    figure = blank()
    axes = figure.subplots()
    planned = config.epochs * FINE
    epochs = [step / FINE for step in range(planned + 1)]
    warmup, peak = config.warmup_epochs * FINE, config.learning_rate
    rates = [learning_rate(step, planned, warmup, peak, config.schedule) for step in range(planned)]
    axes.plot(epochs[1:], rates, color=MUTED, linewidth=1, linestyle="dotted", label="planned")
    axes.plot([r.epoch for r in rows], [r.rate for r in rows], color=LOCAL, marker=_marker(rows), label="run")
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
    _finish(axes, config)
    highest = max(rows, key=lambda row: row.rate)
    words = (
        f"Learning rate at the end of each epoch: at most {highest.rate:.2e}, in epoch {highest.epoch}; "
        f"{rows[-1].rate:.2e} in epoch {rows[-1].epoch} of {config.epochs}."
    )
    return Drawn("rate", "Learning rate", words, figure)


def _accuracy(rows: Sequence[EpochRow], config: TrainConfig) -> Drawn:
    figure = blank()
    axes = figure.subplots()
    best = best_row(rows)
    _pair(axes, rows, [r.train_accuracy for r in rows], [r.validation_accuracy for r in rows])
    axes.plot(best.epoch, best.validation_accuracy, "o", color=INK, fillstyle="none", markersize=9, label="best")
    axes.set_ylabel("accuracy, %")
    _finish(axes, config)
    words = (
        f"Accuracy by epoch: training from {rows[0].train_accuracy:.2f} to {rows[-1].train_accuracy:.2f} %, "
        f"validation from {rows[0].validation_accuracy:.2f} to {rows[-1].validation_accuracy:.2f} %, "
        f"best {best.validation_accuracy:.2f} % in epoch {best.epoch}."
    )
    return Drawn("accuracy", "Accuracy", words, figure)


def _loss(rows: Sequence[EpochRow], config: TrainConfig) -> Drawn:
    figure = blank()
    axes = figure.subplots()
    _pair(axes, rows, [r.train_loss for r in rows], [r.validation_loss for r in rows])
    axes.set_ylabel("cross entropy, nats")
    _finish(axes, config)
    words = (
        f"Loss by epoch: training from {rows[0].train_loss:.3f} to {rows[-1].train_loss:.3f} nats, "
        f"validation from {rows[0].validation_loss:.3f} to {rows[-1].validation_loss:.3f}."
    )
    return Drawn("loss", "Loss", words, figure)


def _pair(axes: Axes, rows: Sequence[EpochRow], train: Sequence[float], validation: Sequence[float]) -> None:
    epochs, marker = [row.epoch for row in rows], _marker(rows)
    axes.plot(epochs, train, color=TRAIN, linestyle="dashed", marker=marker, label="training")
    axes.plot(epochs, validation, color=LOCAL, marker=marker, label="validation")


def _marker(rows: Sequence[EpochRow]) -> str:
    """A single epoch makes no line."""
    return "o" if len(rows) == 1 else ""


def _finish(axes: Axes, config: TrainConfig) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(0, config.epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.figure.legend(loc="outside upper left", ncols=3, handlelength=1.6, columnspacing=1.2)
