"""What is drawn is what was measured."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PublishedLine
from pipeline.gap.forecast import on_line
from pipeline.recipes import PRESETS
from pipeline.reporting import figures
from pipeline.reporting.figures import Drawn, Point
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow
from pipeline.store.submissions import Outputs
from tests.gap.cases import answered
from tests.support import NAMES, SLUG, prepare

CONFIG = dataclasses.replace(PRESETS["rehearsal"], epochs=4, warmup_epochs=2.0)
ROWS = [EpochRow(k, 1e-3 / k, 3.0 - k, 20.0 * k, 2.5 - k, 15.0 * k, 100.0, 5.0) for k in (1, 2, 3)]
ENTRY = Entry("2025-03-01T00:00:00", "slug", "a", "sha", 1, 91.0, 90.0, 80.0, 81.0, "complete")


def lines(drawn: Drawn) -> dict[str, tuple[list[float], list[float]]]:
    """What each line shows, by its name in the legend."""
    (axes,) = drawn.figure.axes
    return {str(line.get_label()): tuple(np.asarray(v).tolist() for v in line.get_data()) for line in axes.lines}


def test_the_papers_figures_show_metrics_as_they_are() -> None:
    rate, accuracy, loss = figures.draw_training(ROWS, CONFIG)
    assert lines(rate)["run"] == ([1, 2, 3], [row.rate for row in ROWS])
    assert lines(accuracy)["training"] == ([1, 2, 3], [20.0, 40.0, 60.0])
    assert lines(accuracy)["validation"] == ([1, 2, 3], [15.0, 30.0, 45.0])
    assert lines(accuracy)["best"] == ([3], [45.0])
    assert lines(loss)["training"] == ([1, 2, 3], [2.0, 1.0, 0.0])
    assert lines(loss)["validation"] == ([1, 2, 3], [1.5, 0.5, -0.5])
    assert "best 45.00 % in epoch 3" in accuracy.alt and "from 2.000 to 0.000 nats" in loss.alt


def test_the_planned_rate_rises_and_falls_as_the_recipe_says() -> None:
    epochs, rates = lines(figures.draw_training(ROWS, CONFIG)[0])["planned"]
    peak = int(np.argmax(rates))
    assert epochs[peak] == pytest.approx(2.0, abs=0.1) and rates[peak] == pytest.approx(1e-3)
    assert epochs[-1] == 4 and rates[-1] < 1e-4


def test_a_single_epoch_is_a_point() -> None:
    (axes,) = figures.draw_training(ROWS[:1], CONFIG)[1].figure.axes
    assert all(line.get_marker() == "o" for line in axes.lines)


def test_the_confusion_matrix_counts_what_was_taken_for_what() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2], np.uint8)
    given = np.array([0, 0, 2, 1, 1, 1])
    said = Outputs(np.eye(3, dtype=np.float32)[given], given.astype(np.uint8)[None], truth)
    table = figures.confusion(said, 3)
    assert table.tolist() == [[2, 0, 1], [0, 2, 0], [0, 1, 0]]


def test_answers_are_drawn_in_per_cent(tmp_path: Path) -> None:
    data = Processed.open(prepare(tmp_path) / "data/processed" / SLUG)
    evidence = answered(data)
    confusion, classes = figures.labelled(evidence, NAMES)
    counts = figures.confusion(evidence.test, 10)
    shown = {text.get_position(): text.get_text() for text in confusion.figure.axes[0].texts}
    for true, given in np.ndindex(10, 10):
        share = 100 * counts[true, given] / counts[true].sum()
        assert shown.get((given, true)) == (f"{share:.0f}" if share >= 0.5 else None)
    bars = [bar.get_width() for bar in classes.figure.axes[0].containers[0]]
    assert bars == pytest.approx((100 * np.diag(counts) / counts.sum(axis=1)).tolist())
    labels, confidence = figures.hidden(evidence, NAMES)
    assert "Below one half are" in confidence.alt and f"{NAMES[0]} " in labels.alt


def test_submissions_are_points_with_what_was_foretold() -> None:
    foretold = dataclasses.replace(ENTRY, ref=None, status="predicted", predicted=82.0, predicted_low=79.0,
                                   predicted_high=85.0, public=None, private=None)  # fmt: skip
    draft = dataclasses.replace(foretold, csv_sha256="other", local_test=93.0)
    known = figures.points([ENTRY], {"sha": foretold, "other": draft}, draft)
    assert known == [
        Point(90.0, 82.0, 79.0, 85.0, 80.0, 81.0),
        Point(93.0, 82.0, 79.0, 85.0, None, None),
    ]
    assert len(figures.points([ENTRY] * 50, {}, None)) == figures.NEWEST
    nothing = dataclasses.replace(ENTRY, local_test=None, public=None, private=None, status="pending")
    assert figures.points([nothing, ENTRY], {}, None) == [Point(90.0, None, None, None, 80.0, 81.0)]


def test_scores_are_drawn_over_local_accuracy_and_on_the_line() -> None:
    line = PublishedLine(-0.333, 0.818, "somewhere")
    known = [Point(90.0, 82.0, 79.0, 85.0, 80.0, 81.0), Point(93.0, None, None, None, None, None)]
    by_submission, over_local = figures.draw_scores(known, line)
    assert lines(by_submission)["local"] == ([1, 2], [90.0, 93.0])
    assert lines(by_submission)["public"][1][0] == 80.0
    places, values = lines(over_local)["published line"]
    assert values == pytest.approx([100 * on_line(line, place / 100) for place in places])
    assert lines(over_local)["public"][0] == [90.0, 93.0]
    assert "95 % locally, 84.4 % on Kaggle" in over_local.alt
    assert "published line" not in lines(figures.draw_scores(known, None)[1])


def test_a_single_submission_has_a_whole_number() -> None:
    (axes,) = figures.draw_scores([Point(90.0, None, None, None, 80.0, None)], None)[0].figure.axes
    assert [tick for tick in axes.get_xticks() if 0.4 <= tick <= 1.6] == [1.0]


def test_a_prediction_outside_its_interval_is_drawn() -> None:
    assert len(figures.draw_scores([Point(90.0, 90.0, 92.0, 95.0, None, None)], None)) == 2


def test_a_submission_that_is_not_from_here_has_no_local_accuracy() -> None:
    stranger = figures.points([dataclasses.replace(ENTRY, local_test=None)], {}, None)
    assert [drawn.name for drawn in figures.draw_scores(stranger, None)] == ["scores", "line"]
