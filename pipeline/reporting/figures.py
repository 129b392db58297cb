"""The figures of the report and of `check --pictures`, in one palette for light and dark mode.

Sizes are CSS pixels.  Class names come from the download, so they may be long, in any script, or contain dollar signs.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.config import Paths, PublishedLine
from pipeline.errors import BadData, printable
from pipeline.gap import shift
from pipeline.gap.assessment import Assessment
from pipeline.gap.forecast import on_line
from pipeline.recipes import TrainConfig
from pipeline.store import atomic
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, best_row
from pipeline.store.submissions import Evidence, Outputs, again

INK, MUTED = "#1c2128", "#59636e"
HOLDOUT, HIDDEN, TRAIN, PRIVATE = "#1d4ed8", "#c2410c", "#0f766e", "#7e22ce"  # one colour for each set, in all figures
WIDTH = 340  # of a narrow phone, without the page's margins
SCALE = 2.5  # pixels of the PNG for one CSS pixel
LONGEST = 12  # characters of a class name on an axis
NEWEST = 20  # submissions in a figure
COLUMNS, FIRST, MOST = 4, 8, 24  # images in a row of a contact sheet, on the first of a kind, and of that kind in all
TILE, COLUMN, ROW, TITLE = 82, 86, 122, 42  # side of an image on it, the steps from one to the next, and its title
NEAREST = 48  # side of a training image below

STYLE: Any = {  # matplotlib declares its keys from 3.11 on, as a type of its own
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 12,
    "axes.titlesize": 13,
    "legend.fontsize": 12,
    "lines.linewidth": 2,
    "figure.dpi": 72,  # so that a point is a CSS pixel
}
# A context, or a function's decorator; "default" leaves the user's matplotlibrc out.
style = partial(matplotlib.style.context, ["default", "seaborn-v0_8-whitegrid", STYLE])


@dataclass(frozen=True)
class Picture:
    """A figure, its file name, and its alt text."""

    name: str
    alt: str
    figure: Figure
    folded: bool = False  # whether the page hides it at first

    @cached_property
    def png(self) -> bytes:
        """The PNG file's content."""
        stream = io.BytesIO()
        with style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # its box says enough
            self.figure.savefig(stream, format="png", dpi=72 * SCALE)
        return stream.getvalue()


def write(pictures: Sequence[Picture], folder: Path, name: str) -> list[Path]:
    """Write folder/NAME-FIGURE.png, each atomically, and return the paths."""
    paths = [folder / f"{name}-{picture.name}.png" for picture in pictures]
    for path, picture in zip(paths, pictures, strict=True):
        atomic.write_bytes(path, picture.png)
    return paths


def open_images(assessment: Assessment, paths: Paths) -> tuple[Evidence, Processed]:
    """All saved probabilities of a CSV, and its images.

    Raises:
        MissingInput: preprocess has not run.
        BadData: the images have changed, or are damaged.
    """
    csv, evidence = assessment.csv, assessment.evidence
    data = Processed.open(paths.processed / csv.sidecar.competition)
    labels = data.array("test_labels")
    if data.hidden_fingerprint != csv.sidecar.hidden or not np.array_equal(labels, evidence.holdout.known_truth):
        cure = again(csv.path, csv.sidecar.run, paths)
        raise BadData(f"{data.folder} holds other images than {csv.path} is of: restore it, or {cure}")
    if len(evidence.hidden) < csv.sidecar.rows:  # an assessment loads a sample of very many
        evidence = Evidence.read(csv)
    return evidence, data


def _axes(height: float = 240) -> Axes:
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained").subplots()


def _picture(name: str, title: str, alt: str, axes: Axes, **labels: Any) -> Picture:
    """The figure of `axes`, with its title, the legend below, and what Axes.set takes."""
    axes.set(**labels)
    axes.set_title(title, loc="left")
    figure = axes.get_figure(root=True)
    assert figure is not None  # from _axes
    if names := axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower left", ncols=3 if len(names) == 3 else 2, handlelength=1.6, columnspacing=1.2)
    return Picture(name, f"{title}. {alt}.", figure)


# --- training ---------------------------------------------------------------------------------------------


@style()
def training(rows: Sequence[EpochRow], config: TrainConfig) -> list[Picture]:
    """Accuracy and loss by epoch; `rows` may be those of an unfinished run, but not empty."""
    best, last, marker = best_row(rows), rows[-1], "o" if len(rows) == 1 else ""  # a single epoch makes no line
    figures = []
    for measure, title, shown in (("accuracy", "Accuracy, %", "{:.2f}%"), ("loss", "Loss (cross entropy)", "{:.3f}")):
        axes, words = _axes(), [f"After epoch {last.epoch} of {config.epochs}"]
        for field, name, colour, line in (
            (f"train_{measure}", "training", TRAIN, "--"),
            (f"validation_{measure}", "validation", HOLDOUT, "-"),
        ):
            values = [getattr(row, field) for row in rows]
            axes.plot([row.epoch for row in rows], values, color=colour, linestyle=line, marker=marker, label=name)
            words.append(f"{name} {shown.format(values[-1])}")
        if measure == "accuracy":
            top = f"best {best.validation_accuracy:.2f}%"
            axes.plot(best.epoch, best.validation_accuracy, "o", color=INK, fillstyle="none", markersize=9, label=top)
            words.append(f"{top} in epoch {best.epoch}")
        _show_the_end(axes, rows, measure)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        figures.append(_picture(measure, title, ", ".join(words), axes, xlabel="epoch", xlim=(0, config.epochs + 0.5)))
    return figures


def _show_the_end(axes: Axes, rows: Sequence[EpochRow], measure: str) -> None:
    """Let the first third of the epochs leave the axes, which would flatten the last ones."""
    late = rows[len(rows) // 3 :]
    values = [getattr(row, f"{name}_{measure}") for row in late for name in ("train", "validation")]
    room = max((max(values) - min(values)) / 12, 0.01)
    axes.set_ylim(min(values) - room, max(values) + room)


# --- the holdout and the test images --------------------------------------------------------------------


@style()
def holdout(evidence: Evidence, data: Processed) -> list[Picture]:
    """The model's errors on the holdout: confusions, and the most confident mistakes."""
    outputs, names = evidence.holdout, _short(data)
    confidence, labels, truth = outputs.probabilities.max(axis=1), outputs.labels, outputs.known_truth
    order = np.argsort(-confidence, kind="stable")
    rows = order[labels[order] != truth[order]][:MOST]
    captions = [f"{names[labels[k]]} {100 * confidence[k]:.0f}%\nis {names[truth[k]]}" for k in rows.tolist()]
    title, images = "Most confident mistakes\nprediction, confidence, and true class", data.array("test_images")[rows]
    return [_confusion(outputs, names), *_sheets("mistakes", title, [(np.asarray(images), captions)])]


@style()
def hidden(evidence: Evidence, data: Processed) -> list[Picture]:
    """The test set against the holdout: predicted classes, confidence, and single images."""
    uncertain = np.argsort(evidence.hidden.probabilities.max(axis=1), kind="stable")[:MOST]
    unusual = evidence.hidden_rows[np.argsort(-evidence.ood_scores, kind="stable")[:MOST]]
    below = "\nnearest training image shown small below"
    return [
        _classes(evidence, _short(data)),
        _confidence(evidence),
        *_sheets("low-confidence", f"Lowest confidence{below}", _with_nearest(evidence, data, uncertain)),
        *_sheets("out-of-distribution", f"Least like the holdout{below}", _with_nearest(evidence, data, unusual)),
    ]


def _short(data: Processed) -> list[str]:
    return [printable(name, LONGEST) for name in data.class_names]


def _confusion(outputs: Outputs, names: Sequence[str]) -> Picture:
    """The confusion matrix: true classes (rows), predicted ones (columns)."""
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (outputs.known_truth, outputs.labels), 1)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes, right = _axes(345), np.eye(len(names), dtype=bool)
    off = np.where(right, 0.0, shares)
    # Half of each colour map: text on the strongest fill stays readable.
    axes.imshow(np.ma.masked_where(~right, shares), cmap="Blues", vmin=0, vmax=200)
    axes.imshow(np.ma.masked_where(right, shares), cmap="Oranges", vmin=0, vmax=2 * max(off.max(), 1.0))
    for true, given in np.argwhere(shares >= 0.5).tolist():
        axes.text(given, true, f"{shares[true, given]:.0f}", ha="center", va="center", fontsize=11)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    accuracy = [f"{name} {share:.1f}" for name, share in zip(names, np.diag(shares).tolist(), strict=True)]
    axes.set_yticks(range(len(names)), accuracy)
    axes.grid(visible=False)
    taken, for_ = divmod(int(off.argmax()), len(names))
    words = f". Most often confused: {names[taken]} taken for {names[for_]}, {off[taken, for_]:.1f}%" * bool(off.max())
    return _picture("confusion", "Confusion, % of true class", f"Accuracy: {', '.join(accuracy)}{words}", axes,
                    xlabel="predicted", ylabel="true class, its accuracy in %")  # fmt: skip


def _classes(evidence: Evidence, names: Sequence[str]) -> Picture:
    axes, places = _axes(280), np.arange(len(names))
    predicted, true = (
        100 * np.bincount(labels, minlength=len(names)) / len(labels)
        for labels in (evidence.hidden.labels, evidence.holdout.known_truth)
    )
    axes.bar(places - 0.2, predicted, 0.4, color=HIDDEN, label="test set, predicted")
    axes.bar(places + 0.2, true, 0.4, color=HOLDOUT, label="holdout, true")
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
    axes.grid(visible=False, axis="x")
    words = ", ".join(f"{name} {share:.1f}%" for name, share in zip(names, predicted.tolist(), strict=True))
    return _picture("labels", "Classes, % of images", f"Predicted for the test set: {words}", axes)


def _confidence(evidence: Evidence) -> Picture:
    axes, below = _axes(280), []
    for outputs, colour, label in ((evidence.hidden, HIDDEN, "test set"), (evidence.holdout, HOLDOUT, "holdout")):
        confidence = np.sort(outputs.probabilities.max(axis=1))
        axes.plot(confidence, 100 * np.arange(1, len(confidence) + 1) / len(confidence), color=colour, label=label)
        below.append(f"{100 * np.mean(confidence < 0.5):.1f}% of the {label}")
    return _picture("confidence", "Images below each confidence, %", f"Below one half: {' and '.join(below)}", axes,
                    xlabel="largest probability, before calibration")  # fmt: skip


# --- contact sheets ---------------------------------------------------------------------------------------


Layer = tuple[NDArray[np.uint8], Sequence[str]]  # images (N, 32, 32, 3), and a caption of two lines for each


def _with_nearest(evidence: Evidence, data: Processed, rows: NDArray[np.int64]) -> list[Layer]:
    """The test images `rows`, and the nearest training image of each."""
    images = np.asarray(data.array("hidden_images")[rows])
    near, correlations = shift.nearest(images, data.array("train_images"))
    names, ids, labels = _short(data), data.array("hidden_ids"), data.array("train_labels")
    captions = [
        f"{names[p.argmax()]} {100 * p.max():.0f}%\nid {ids[k]}"
        for k, p in zip(rows.tolist(), evidence.hidden.probabilities[rows], strict=True)
    ]
    alike = [f"{names[labels[k]]}\nr = {r:.2f}" for k, r in zip(near.tolist(), correlations.tolist(), strict=True)]
    return [(images, captions), (np.asarray(data.array("train_images")[near]), alike)]


def _sheets(name: str, title: str, layers: Sequence[Layer]) -> list[Picture]:
    """A contact sheet of the FIRST images and, folded, one of the others; none without images."""
    parts = {name: slice(FIRST), f"{name}-more": slice(FIRST, None)}
    return [
        _sheet(each, title, [(images[part], captions[part]) for images, captions in layers], folded=each != name)
        for each, part in parts.items()
        if layers[0][1][part]
    ]


def _sheet(name: str, title: str, layers: Sequence[Layer], *, folded: bool) -> Picture:
    """Images in rows of COLUMNS, those of a second layer below each row."""
    captions = layers[0][1]
    step = ROW + (ROW - TILE + NEAREST) * (len(layers) - 1)
    height = TITLE + step * -(-len(captions) // COLUMNS)
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(0, 2, title, va="top", fontsize=13)
    for layer, tiles in enumerate(layers):
        for k, (image, caption) in enumerate(zip(*tiles, strict=True)):
            row, column = divmod(k, COLUMNS)
            x, y = column * COLUMN, TITLE + step * row + ROW * layer
            side = NEAREST if layer else TILE
            axes.imshow(image, extent=(x, x + side, y + side, y), aspect="auto")
            axes.text(x, y + side + 2, caption, va="top", fontsize=10, linespacing=1.15)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    words = "; ".join([title, *captions]).replace("\n", ", ")
    return Picture(name, f"{words}.", figure, folded)


# --- scores -----------------------------------------------------------------------------------------------


@style()
def scores(submissions: Sequence[tuple[Entry, Entry | None]], line: PublishedLine | None) -> list[Picture]:
    """Predicted and actual scores of the NEWEST submissions against holdout accuracy, if any is known."""
    known = [
        (e, p) for e, p in submissions if e.local_test is not None and (p or (e.public, e.private) != (None, None))
    ]
    if not (known := known[-NEWEST:]):
        return []
    values = {  # None becomes NaN, which is not drawn
        "holdout": np.array([entry.local_test for entry, _ in known], dtype=float),
        "predicted": np.array([guess and guess.predicted for _, guess in known], dtype=float),
        "public": np.array([entry.public for entry, _ in known], dtype=float),
        "private": np.array([entry.private for entry, _ in known], dtype=float),
    }
    ends = np.array([(p.predicted_low, p.predicted_high) if p else (None, None) for _, p in known], dtype=float).T
    alt = "; ".join(
        ", ".join(f"{name} {value[k]:.2f}%" for name, value in values.items() if np.isfinite(value[k]))
        for k in range(len(known))
    )
    axes, places = _axes(416), values["holdout"]
    drawn = np.clip(np.concatenate([*values.values(), ends.ravel()]), 0, 100)
    limits = max(float(np.nanmin(drawn)) - 3, 0.0), min(float(np.nanmax(drawn)) + 3, 100.0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.plot(limits, limits, color=MUTED, linewidth=1, linestyle=":", label="no gap")
    if line is not None:
        grid = np.linspace(*limits, 200)
        axes.plot(grid, [100 * on_line(line, value / 100) for value in grid], color=TRAIN, label="published line")
    for name, colour, marker in (("public", HIDDEN, "s"), ("private", PRIVATE, "D")):
        if np.isfinite(values[name]).any():
            axes.plot(places, values[name], color=colour, marker=marker, linestyle="", label=name)
    if np.isfinite(guess := values["predicted"]).any():
        reach = np.maximum([guess - ends[0], ends[1] - guess], 0)  # an edited ledger can hold anything
        axes.errorbar(places, guess, yerr=reach, color=TRAIN, fmt="_", markersize=9, capsize=4, elinewidth=1.5,
                      zorder=1.9, label="predicted, 90%")  # fmt: skip
    return [_picture("gap", "Kaggle score against holdout accuracy", alt, axes, xlabel="holdout accuracy, %",
                     ylabel="Kaggle score, %", xlim=limits, ylim=limits, aspect="equal")]  # fmt: skip
