"""What is drawn is what was measured."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import PublishedLine
from pipeline.gap import shift
from pipeline.gap.forecast import on_line
from pipeline.recipes import PRESETS
from pipeline.reporting import figures
from pipeline.reporting.figures import Picture
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow
from pipeline.store.submissions import Evidence, Outputs
from tests.gap.cases import ENTRY
from tests.support import NAMES, SLUG, prepare

CONFIG = dataclasses.replace(PRESETS["rehearsal"], epochs=4, warmup_epochs=2.0)
ROWS = [EpochRow(k, 1e-3 / k, 3.0 - k, 20.0 * k, 2.5 - k, 15.0 * k, 100.0, 5.0) for k in (1, 2, 3)]
PREDICTED = dataclasses.replace(ENTRY, ref=None, status="predicted", public=None, private=None, predicted=82.0,
                                predicted_low=79.0, predicted_high=85.0)  # fmt: skip
UNSENT = dataclasses.replace(PREDICTED, local_test=93.0)


def lines(picture: Picture) -> dict[str, tuple[list[float], list[float]]]:
    """What each line shows, by its name in the legend."""
    (axes,) = picture.figure.axes
    return {str(line.get_label()): tuple(np.asarray(v).tolist() for v in line.get_data()) for line in axes.lines}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Processed:
    folder = prepare(tmp_path_factory.mktemp("place"), hidden=60)
    return Processed.open(folder / "data/processed" / SLUG)


@pytest.fixture(scope="module")
def evidence(data: Processed) -> Evidence:
    """Made-up outputs for all images; every second hidden one lends its features."""
    truth, rng = np.array(data.array("test_labels"), np.uint8), np.random.default_rng
    hidden, test = (rng(k).dirichlet(np.full(10, 0.3), n).astype(np.float32) for k, n in enumerate((60, len(truth))))
    given, known = (outputs.argmax(axis=1).astype(np.uint8)[None] for outputs in (hidden, test))
    rows, test_rows = np.arange(0, 60, 2), np.arange(len(truth))
    return Evidence(
        ("a",), Outputs(hidden, given, None), Outputs(test, known, truth), None, rows, np.zeros((30, 3), np.float32),
        rng(2).normal(size=30).astype(np.float32), test_rows, np.zeros((len(truth), 3), np.float32), {},
    )  # fmt: skip


def test_training_figures_show_the_metrics() -> None:
    accuracy, loss = figures.training(ROWS, CONFIG)
    assert lines(accuracy)["training"] == ([1, 2, 3], [20.0, 40.0, 60.0])
    assert lines(accuracy)["validation"] == ([1, 2, 3], [15.0, 30.0, 45.0])
    assert lines(accuracy)["best 45.00%"] == ([3], [45.0])
    (axes,) = accuracy.figure.axes
    low, high = axes.get_ylim()
    assert 15 < low < 30 and 60 < high < 65  # the end is large, the first of three epochs below the axes
    assert lines(loss)["training"] == ([1, 2, 3], [2.0, 1.0, 0.0])
    assert lines(loss)["validation"] == ([1, 2, 3], [1.5, 0.5, -0.5])
    assert "best 45.00% in epoch 3" in accuracy.alt and "After epoch 3 of 4" in loss.alt
    (axes,) = figures.training(ROWS[:1], CONFIG)[0].figure.axes
    assert all(line.get_marker() == "o" for line in axes.lines)  # a single epoch makes no line


def test_the_confusion_matrix_is_drawn_in_per_cent(data: Processed, evidence: Evidence) -> None:
    confusion, *_ = figures.holdout(evidence, data)
    counts = np.zeros((10, 10))
    for true, given in zip(evidence.holdout.known_truth, evidence.holdout.labels, strict=True):
        counts[true, given] += 1
    (axes,) = confusion.figure.axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    for true, given in np.ndindex(10, 10):
        share = 100 * counts[true, given] / counts[true].sum()
        assert shown.get((given, true)) == (f"{share:.0f}" if share >= 0.5 else None)
    accuracy = 100 * np.diag(counts) / counts.sum(axis=1)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        f"{name} {share:.1f}" for name, share in zip(NAMES, accuracy, strict=True)
    ]


def test_a_perfect_model_confuses_nothing(data: Processed, evidence: Evidence) -> None:
    right = dataclasses.replace(evidence.holdout, truth=evidence.holdout.labels.astype(np.uint8))
    confusion, *_ = figures.holdout(dataclasses.replace(evidence, holdout=right), data)
    assert "confused" in figures.holdout(evidence, data)[0].alt and "confused" not in confusion.alt


def test_the_most_confident_mistakes_are_shown(data: Processed, evidence: Evidence) -> None:
    probabilities = np.full((20, 10), 0.05, dtype=np.float32)
    truth = np.array(data.array("test_labels"), np.uint8)
    given = truth.copy()
    given[[3, 8]] = [9, 2]
    probabilities[np.arange(20), given] = 0.6
    probabilities[8, 2] = 0.9
    outputs = Outputs(probabilities, given[None], truth)
    _, sheet = figures.holdout(dataclasses.replace(evidence, holdout=outputs), data)
    assert tiles(sheet)[0] == ["two 90%\nis eight", "nine 60%\nis three"]
    assert np.array_equal(tiles(sheet)[1][0], data.array("test_images")[8])
    right = Outputs(np.eye(10, dtype=np.float32)[truth], truth[None], truth)
    assert [p.name for p in figures.holdout(dataclasses.replace(evidence, holdout=right), data)] == ["confusion"]


def tiles(sheet: Picture) -> tuple[list[str], list[NDArray[np.uint8]]]:
    """The captions on a contact sheet, and its images."""
    (axes,) = sheet.figure.axes
    return [text.get_text() for text in axes.texts[1:]], [np.asarray(image.get_array()) for image in axes.images]


def test_images_of_the_test_set_come_with_their_nearest_training_images(data: Processed, evidence: Evidence) -> None:
    images, ids = data.array("hidden_images"), data.array("hidden_ids")
    train, labels = data.array("train_images"), data.array("train_labels")
    *_, uncertain, uncertain_more, foreign, foreign_more = figures.hidden(evidence, data)
    assert [p.folded for p in (uncertain, uncertain_more, foreign, foreign_more)] == [False, True] * 2
    for sheet, first in (
        (uncertain, evidence.hidden.probabilities.max(axis=1).argmin()),
        (foreign, evidence.hidden_rows[evidence.ood_scores.argmax()]),
    ):
        captions, shown = tiles(sheet)
        assert len(captions) == len(shown) == 2 * figures.FIRST
        probabilities = evidence.hidden.probabilities[first]
        assert captions[0] == f"{NAMES[probabilities.argmax()]} {100 * probabilities.max():.0f}%\nid {ids[first]}"
        near, correlations = shift.nearest(images[first : first + 1], train)
        assert captions[figures.FIRST] == f"{NAMES[labels[near[0]]]}\nr = {correlations[0]:.2f}"
        assert np.array_equal(shown[0], images[first]) and np.array_equal(shown[figures.FIRST], train[near[0]])
        assert captions[0].replace("\n", ", ") in sheet.alt
    score = dict(zip(ids[evidence.hidden_rows].tolist(), evidence.ood_scores.tolist(), strict=True))
    captions = tiles(foreign)[0][: figures.FIRST] + tiles(foreign_more)[0][: figures.MOST - figures.FIRST]
    order = [score[int(caption.split()[-1])] for caption in captions]
    assert order == sorted(score.values(), reverse=True)[: figures.MOST]


def test_the_test_set_is_counted_in_per_cent(data: Processed, evidence: Evidence) -> None:
    classes, confidence, *_ = figures.hidden(evidence, data)
    predicted, true = (np.array([bar.get_height() for bar in bars]) for bars in classes.figure.axes[0].containers)
    assert predicted == pytest.approx(100 * np.bincount(evidence.hidden.labels, minlength=10) / 60)
    assert true == pytest.approx([10.0] * 10)
    for name, outputs in (("test set", evidence.hidden), ("holdout", evidence.holdout)):
        x, y = lines(confidence)[name]
        assert x == sorted(outputs.probabilities.max(axis=1).tolist()) and y[-1] == 100


def test_scores_are_drawn_on_the_line() -> None:
    line = PublishedLine(-0.333, 0.818, "somewhere")
    (picture,) = figures.scores([(ENTRY, PREDICTED), (UNSENT, UNSENT)], line)
    assert lines(picture)["public"][0] == [90.0, 93.0] and lines(picture)["public"][1][0] == 80.0
    assert (
        picture.figure.axes[0].get_aspect() == 1 and len(set(map(tuple, lines(picture)["no gap"]))) == 1
    )  # it has to be 45 degrees
    places, values = lines(picture)["published line"]
    assert values == pytest.approx([100 * on_line(line, place / 100) for place in places])
    assert "holdout 90.00%, predicted 82.00%, public 80.00%, private 81.00%; holdout 93.00%" in picture.alt
    (newest,) = figures.scores([(ENTRY, None)] * 50, None)
    assert len(lines(newest)["public"][0]) == figures.NEWEST and "published line" not in lines(newest)


@pytest.mark.parametrize("unknown", [{"local_test": None}, {"public": None, "private": None}])
def test_what_is_unknown_is_not_drawn(unknown: dict[str, Any]) -> None:
    assert figures.scores([(dataclasses.replace(ENTRY, **unknown), None)], None) == []


def test_pictures_show_all_that_is_drawn(
    data: Processed, evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "MOST", 4)  # which is faster
    pictures = [*figures.training(ROWS, CONFIG), *figures.hidden(evidence, data), *figures.holdout(evidence, data)]
    outside = dataclasses.replace(PREDICTED, predicted=99.0)  # its own interval
    for guess in (outside, PREDICTED):
        pictures += figures.scores([(ENTRY, guess)], PublishedLine(-0.333, 0.818, "somewhere"))
    for picture in pictures:
        picture.figure.draw_without_rendering()
        (axes,), room = picture.figure.axes, picture.figure.bbox.padded(1)
        legends = [legend.get_window_extent() for legend in picture.figure.legends]
        assert not any(box.overlaps(axes.get_window_extent()) for box in legends)
        for box in (*legends, axes.get_tightbbox()):
            assert box is not None and room.contains(*box.min) and room.contains(*box.max), picture.name
    written = figures.write([pictures[0], pictures[-1]], tmp_path / "new", "run")
    assert [path.name for path in written] == ["run-accuracy.png", "run-gap.png"]
    with Image.open(written[0]) as image:
        assert (image.format, image.width) == ("PNG", figures.WIDTH * figures.SCALE)
        assert np.asarray(image.convert("L")).std() > 10


def test_class_names_may_be_anything(data: Processed, evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST", 1)
    monkeypatch.setattr(figures, "SCALE", 1.0)
    names = ["$5", r"$\frac{$", "x" * 40, "_", "日本語の名前", "é", "100 %", "<b>", "", "0"]
    facts = {**data.manifest.facts, "class_names": names}
    strange = dataclasses.replace(data, manifest=dataclasses.replace(data.manifest, facts=facts))
    for picture in (*figures.holdout(evidence, strange), *figures.hidden(evidence, strange)):
        assert Image.open(io.BytesIO(picture.png)).format == "PNG"
