"""Pictures by which a person judges the hidden images: what is foreign, what is uncertain, how answers are distributed.

NAME-foreign.png      the images least like labelled ones, each above the training image it resembles most
NAME-uncertain.png    the images of least confidence, likewise
NAME-answers.png      classes predicted and expected; confidence; foreignness
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.gap import duplicates
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import Diagnosis
from pipeline.store import atomic
from pipeline.store.evidence import Evidence
from pipeline.store.processed import Processed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 3  # of a contact sheet; a row of hidden images stands above one of training images
DPI = 110
HIDDEN, LOCAL = "#c2410c", "#1d4ed8"  # one colour for each set, in all pictures


def draw(evidence: Evidence, found: Diagnosis, data: Processed, folder: Path, name: str) -> list[Path]:
    """Write the three pictures; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    foreign = evidence.hidden_rows[np.argsort(-evidence.foreign, kind="stable")]
    confidence = evidence.hidden.probabilities.max(axis=1)
    uncertain = np.argsort(confidence, kind="stable")
    pictures = {
        "foreign": _sheet(evidence, data, foreign, "Hidden images least like labelled ones"),
        "uncertain": _sheet(evidence, data, uncertain, "Hidden images that the network is least sure of"),
        "answers": _answers(evidence, found, data.class_names),
    }
    return [_write(figure, folder / f"{name}-{kind}.png") for kind, figure in pictures.items()]


def _write(figure: "Figure", path: Path) -> Path:
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return path


def _sheet(evidence: Evidence, data: Processed, rows: NDArray[np.int64], title: str) -> "Figure":
    """The first of the rows, each above its nearest training image."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second that most commands need not take

    chosen = rows[: COLUMNS * ROWS]
    images: Images = np.asarray(data.array("hidden_images")[chosen])
    near = duplicates.nearest(images, data.array("train_images"))
    names, ids = data.class_names, data.array("hidden_ids")
    height = ROWS * 3.2 + 0.6  # inches
    figure = Figure(figsize=(COLUMNS * 1.35, height))
    figure.suptitle(
        f"{title}; below each the training image it resembles most", fontsize=12, y=1 - 0.1 / height, va="top"
    )
    # Places are given, and there are no ticks: a layout that is looked for takes seconds.
    grid = figure.subplots(
        2 * ROWS, COLUMNS, squeeze=False, subplot_kw={"xticks": [], "yticks": []},
        gridspec_kw={"left": 0.02, "right": 0.98, "bottom": 0.1 / height, "top": 1 - 0.8 / height,
                     "wspace": 0.1, "hspace": 0.4},
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    for index, row in enumerate(chosen.tolist()):
        line, column = divmod(index, COLUMNS)
        probabilities = evidence.hidden.probabilities[row]
        label = f"{names[probabilities.argmax()]} {100 * probabilities.max():.0f} %\nid {ids[row]}"
        train = near.rows[index]
        below = f"{names[data.array('train_labels')[train]]}\nr {near.correlations[index]:.2f}"
        for axes, image, text in (
            (grid[2 * line, column], images[index], label),
            (grid[2 * line + 1, column], data.array("train_images")[train], below),
        ):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(text, fontsize=8, y=1)
    return figure


def _answers(evidence: Evidence, found: Diagnosis, names: Sequence[str]) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    figure.suptitle(f"Diagnosis {found.verdict}: {_shortened(found.reason)}", fontsize=11)
    classes, confidence, foreign = figure.subplots(1, 3)
    places = np.arange(len(names))
    for offset, labels, colour, text in (
        (-0.2, evidence.hidden.labels, HIDDEN, "hidden, predicted"),
        (0.2, evidence.test.known_truth.astype(np.int64), LOCAL, "test_batch, true"),
    ):
        shares = 100 * np.bincount(labels, minlength=len(names)) / len(labels)
        classes.bar(places + offset, shares, 0.4, color=colour, label=text)
    classes.set_xticks(places, names, rotation=60, ha="right")
    classes.set_ylabel("images, %")
    classes.set_title("Classes")
    for said, colour, text in ((evidence.hidden, HIDDEN, "hidden"), (evidence.test, LOCAL, "test_batch")):
        sure = np.sort(said.probabilities.max(axis=1))
        confidence.plot(sure, 100 * np.arange(1, len(sure) + 1) / len(sure), color=colour, label=text)
    confidence.set_title(f"Confidence (KS {found.softmax_ks:.2f} at most in a class)")
    confidence.set_xlabel("largest probability, before calibration")
    confidence.set_ylabel("images below, %")
    foreign.hist(evidence.foreign, 30, color=HIDDEN, label="hidden")
    foreign.axvline(0, color="black", linewidth=1, label="as likely labelled as hidden")
    foreign.set_title(f"Foreignness (AUC {found.auc:.2f}; .5: nothing)")
    foreign.set_xlabel("score of a classifier, labelled against hidden")
    foreign.set_ylabel("images of the sample")
    for axes in (classes, confidence, foreign):
        axes.legend(fontsize=8)
    return figure


def _shortened(text: str, longest: int = 110) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
