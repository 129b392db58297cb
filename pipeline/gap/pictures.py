"""Pictures by which a person judges the hidden images: what is foreign, what is uncertain, how answers are distributed.

NAME-foreign.png      the images least like labelled ones, each above the training image it resembles most
NAME-uncertain.png    the images of least confidence, likewise
NAME-answers.png      classes predicted and expected; confidence; foreignness
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.gap import contact_sheets, lettering
from pipeline.gap.contact_sheets import HIDDEN, LOCAL
from pipeline.gap.diagnosis import Diagnosis
from pipeline.store import atomic
from pipeline.store.evidence import Evidence
from pipeline.store.processed import Processed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
LEGEND = 24  # points between axes and title, for the legend


def draw(evidence: Evidence, found: Diagnosis, data: Processed, folder: Path, name: str) -> list[Path]:
    """Write the three pictures; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with lettering.plain():
        pictures = {
            "foreign": contact_sheets.draw(contact_sheets.foreign(evidence, data)),
            "uncertain": contact_sheets.draw(contact_sheets.uncertain(evidence, data)),
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
    middle.set_title(f"Confidence (KS {found.softmax_ks:.2f} at most in a class)", pad=LEGEND)
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
    axes.set_xticks(places, lettering.short(names), rotation=60, ha="right", rotation_mode="anchor")
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
    axes.hist(evidence.foreign, 30, color=HIDDEN, label="hidden")
    axes.axvline(0, color="black", linewidth=1, label="as likely labelled as hidden")
    axes.set_xlabel("score of a classifier, labelled against hidden")
    axes.set_ylabel("images of the sample")


def _shortened(text: str, longest: int = 110) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
