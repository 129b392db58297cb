"""What the network gets wrong on test_batch, and what it says of the hidden images."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pipeline.gap import lettering, pictures
from pipeline.gap.contact_sheets import HIDDEN, LOCAL
from pipeline.reporting.theme import Drawn, blank
from pipeline.store.evidence import Evidence, Said

DEEPEST = 0.45  # opacity of the strongest colour: text on it stays readable in both schemes


def labelled(evidence: Evidence, names: Sequence[str]) -> list[Drawn]:
    """The figures of test_batch."""
    return [_confusion(evidence.test, names), _by_class(evidence.test, names)]


def hidden(evidence: Evidence, names: Sequence[str]) -> list[Drawn]:
    """The figures of the hidden images."""
    return [_classes(evidence, names), _confidence(evidence)]


def confusion(said: Said, classes: int) -> NDArray[np.int64]:
    """How many images of each true class (rows) got each label (columns)."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (said.known_truth, said.labels), 1)
    return table


def _confusion(said: Said, names: Sequence[str]) -> Drawn:
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
    axes.set_xticks(places, lettering.short(names), rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, lettering.short(names))
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    true, given = np.unravel_index(off.argmax(), off.shape)
    words = (
        f"Confusion matrix of test_batch, per cent of each true class. Most often confused: {names[true]} taken for "
        f"{names[given]}, {off[true, given]:.1f} %."
    )
    return Drawn("confusion", "Confusion, % of each true class", words, figure)


def _by_class(said: Said, names: Sequence[str]) -> Drawn:
    counts = confusion(said, len(names))
    accuracy = 100 * np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    figure = blank(370)
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(places, accuracy, 0.7, color=LOCAL, alpha=DEEPEST)
    for place, value in zip(places.tolist(), accuracy.tolist(), strict=True):
        axes.text(2, place, f"{value:.1f}", va="center", fontsize=12)
    axes.set_yticks(places, lettering.short(names))
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
    pictures.classes(axes, evidence, names)
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
    pictures.confidence(axes, evidence)
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
