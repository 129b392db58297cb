"""Images that a person should look at, with what the network says of them; and a sheet of them as a picture.

foreign      the hidden images least like labelled ones, by pipeline.gap.shift
uncertain    the hidden images of least confidence
mistakes     the labelled images of test_batch that the network gets wrong and is surest of

Hidden ones come with the training image that each resembles most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData, printable
from pipeline.gap import duplicates
from pipeline.gap.join import LocalCsv
from pipeline.store.evidence import Evidence
from pipeline.store.processed import Processed
from pipeline.store.sidecar import again

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
    rows = evidence.hidden_rows[np.argsort(-evidence.foreign, kind="stable")]
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
    near = duplicates.nearest(images, data.array("train_images"))
    names, ids, labels = data.class_names, data.array("hidden_ids"), data.array("train_labels")
    probabilities = evidence.hidden.probabilities[rows]
    tiles = [
        Tile(image, (f"{names[p.argmax()]} {_per_cent(p.max())}", f"id {ids[row]}"))
        for row, image, p in zip(rows.tolist(), images, probabilities, strict=True)
    ]
    below = [
        Tile(data.array("train_images")[row], (names[labels[row]], f"r {correlation:.2f}"))
        for row, correlation in zip(near.rows.tolist(), near.correlations.tolist(), strict=True)
    ]
    return Sheet(name, title, tiles, below)


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def draw(sheet: Sheet) -> "Figure":
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
