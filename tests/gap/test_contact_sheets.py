import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.gap import shift
from pipeline.reporting import figures
from pipeline.store.processed import Processed
from pipeline.store.submissions import Outputs
from tests.gap.cases import answered
from tests.support import NAMES, SLUG, prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Processed:
    folder = prepare(tmp_path_factory.mktemp("place"), hidden=60)
    return Processed.open(folder / "data/processed" / SLUG)


def test_foreign_and_unsure_images_come_with_what_they_resemble_most(data: Processed) -> None:
    evidence = answered(data)
    images, ids = data.array("hidden_images"), data.array("hidden_ids")
    train, labels = data.array("train_images"), data.array("train_labels")
    for sheet, first in (
        (figures.foreign(evidence, data), evidence.hidden_rows[evidence.ood_scores.argmax()]),
        (figures.uncertain(evidence, data), evidence.hidden.probabilities.max(axis=1).argmin()),
    ):
        assert len(sheet.tiles) == len(sheet.below) == 24
        assert np.array_equal(sheet.tiles[0].image, images[first])
        probabilities = evidence.hidden.probabilities[first]
        name = NAMES[probabilities.argmax()]
        assert sheet.tiles[0].lines == (f"{name} {100 * probabilities.max():.0f} %", f"id {ids[first]}")
        (row,), (correlation,) = shift.nearest(images[first : first + 1], train)
        assert np.array_equal(sheet.below[0].image, train[row])
        assert sheet.below[0].lines == (NAMES[labels[row]], f"r {correlation:.2f}")
    foreignness = dict(zip(ids[evidence.hidden_rows].tolist(), evidence.ood_scores.tolist(), strict=True))
    order = [foreignness[int(tile.lines[1].removeprefix("id "))] for tile in figures.foreign(evidence, data).tiles]
    assert order == sorted(foreignness.values(), reverse=True)[:24]


def test_the_surest_of_the_wrong_answers_are_shown(data: Processed) -> None:
    probabilities = np.full((20, 10), 0.05, dtype=np.float32)
    truth = np.array(data.array("test_labels"), np.uint8)
    given = truth.copy()
    given[[3, 8]] = [9, 2]
    probabilities[np.arange(20), given] = 0.6
    probabilities[8, 2] = 0.9
    test = Outputs(probabilities, given[None], truth)
    sheet = figures.mistakes(dataclasses.replace(answered(data), test=test), data)
    assert [tile.lines for tile in sheet.tiles] == [("two 90 %", "is eight"), ("nine 60 %", "is three")]
    assert np.array_equal(sheet.tiles[0].image, data.array("test_images")[8])


def test_a_picture_has_the_images_and_what_is_said_of_them(data: Processed) -> None:
    sheet = figures.uncertain(answered(data), data)
    axes = [axes for axes in figures.draw_contact_sheets(sheet).axes if axes.images]
    assert len(axes) == 48
    for shown, tile in ((axes[0], sheet.tiles[0]), (axes[8], sheet.below[0]), (axes[16], sheet.tiles[8])):
        assert np.array_equal(np.asarray(shown.images[0].get_array()), tile.image)
        assert shown.get_title() == "\n".join(tile.lines)


def test_a_few_images_as_foreign_as_each_other_leave_places_empty(tmp_path: Path) -> None:
    """As shift.foreign judges a single image."""
    data = Processed.open(prepare(tmp_path, hidden=3) / "data/processed" / SLUG)
    evidence = dataclasses.replace(answered(data), ood_scores=np.zeros(2, dtype=np.float32))
    assert len(figures.foreign(evidence, data).tiles) == 2
    assert len(figures.uncertain(evidence, data).tiles) == 3
    nothing = dataclasses.replace(figures.uncertain(evidence, data), tiles=(), below=())
    assert not any(axes.images for axes in figures.draw_contact_sheets(nothing).axes)
