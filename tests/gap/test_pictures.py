import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from pipeline.gap.diagnosis import Diagnosis
from pipeline.reporting import figures
from pipeline.store.processed import Processed
from tests.gap.cases import HARDER, answered
from tests.support import NAMES, SLUG, prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Processed:
    folder = prepare(tmp_path_factory.mktemp("place"), hidden=60)
    return Processed.open(folder / "data/processed" / SLUG)


def test_three_pictures_are_written(data: Processed, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "submissions"
    written = figures.draw_pictures(answered(data), HARDER, data, folder, "run")
    names = ["run-foreign.png", "run-uncertain.png", "run-answers.png"]
    assert written == [folder / name for name in names] and sorted(p.name for p in folder.iterdir()) == sorted(names)
    for path, width, height in zip(written, (1100, 1100, 1300), (1000, 1000, 400), strict=True):
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width >= width and image.height >= height
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn


def drawn(
    monkeypatch: pytest.MonkeyPatch, data: Processed, folder: Path, found: Diagnosis = HARDER
) -> dict[str, "Figure"]:
    """What would be written, by kind."""
    kept: dict[str, Figure] = {}

    def keep(figure: "Figure", path: Path) -> Path:
        kept[path.stem.removeprefix("run-")] = figure
        return path

    monkeypatch.setattr(figures, "_write", keep)
    monkeypatch.setattr(figures, "MOST", 8)  # which is faster
    figures.draw_pictures(answered(data), found, data, folder, "run")
    return kept


def test_the_sheets_are_of_their_kinds(data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = drawn(monkeypatch, data, tmp_path)
    for kind, make in (("foreign", figures.foreign), ("uncertain", figures.uncertain)):
        sheet = make(answered(data), data)
        titles = [axes.get_title() for axes in found[kind].axes if axes.images]
        assert titles == ["\n".join(tile.lines) for tile in (*sheet.tiles, *sheet.below)]
        assert found[kind].get_suptitle().startswith(sheet.title)


def test_answers_are_counted_in_per_cent(data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    evidence = answered(data)
    figure = drawn(monkeypatch, data, tmp_path)["answers"]
    classes, confidence, foreign = figure.axes
    hidden, true = (np.array([bar.get_height() for bar in bars]) for bars in classes.containers)
    assert hidden == pytest.approx(100 * np.bincount(evidence.hidden.labels, minlength=10) / 60)
    assert true == pytest.approx([10.0] * 10)
    assert [tick.get_text() for tick in classes.get_xticklabels()] == list(NAMES)
    for line, said in zip(confidence.lines, (evidence.hidden, evidence.test), strict=True):
        x, y = (np.asarray(values) for values in line.get_data())
        assert x.tolist() == sorted(said.probabilities.max(axis=1).tolist()) and y[-1] == 100
    assert "AUC 0.73" in foreign.get_title()
    assert sum(bar.get_height() for bar in foreign.containers[0]) == 30  # each of the sample, once
    assert "natural: uncorrupted images that are harder" in figure.get_suptitle()


def test_legends_cover_nothing(data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figure = drawn(monkeypatch, data, tmp_path)["answers"]
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        assert not any(box.overlaps(other) for other in (axes.get_window_extent(), axes.title.get_window_extent()))
        assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)


def test_a_long_reason_is_cut(data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = dataclasses.replace(HARDER, reason="long " * 100)
    title = drawn(monkeypatch, data, tmp_path, found)["answers"].get_suptitle()
    assert len(title) < 150 and title.endswith("…")
