import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pipeline.gap import duplicates, pictures
from pipeline.gap.corruptions import Done
from pipeline.gap.damage import Found
from pipeline.gap.diagnosis import Diagnosis
from pipeline.gap.memory import remember
from pipeline.store.evidence import Evidence, Said
from pipeline.store.processed import Processed
from tests.gap.cases import NOTHING
from tests.support import NAMES, SLUG, prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUND = dataclasses.replace(
    NOTHING, verdict="natural", reason="undamaged images that are harder", auc=0.73, softmax_ks=0.12, harder=0.1,
    pixels=Found(0.4, (Done("blur", 0.5),), 0.3, (), False),
)  # fmt: skip


def answers(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).dirichlet(np.full(10, 0.3), count).astype(np.float32)


def opened(folder: Path, hidden: int) -> Processed:
    prepare(folder, hidden=hidden)
    return Processed.open(folder / "data/processed" / SLUG)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Processed:
    return opened(tmp_path_factory.mktemp("place"), 60)


def answered(data: Processed) -> Evidence:
    """Made-up answers to all images; every second hidden one lends its features."""
    hidden, test = answers(len(data.array("hidden_ids")), 0), answers(20, 1)
    rows, test_rows = np.arange(0, len(hidden), 2), np.arange(20)
    return Evidence(
        csv_sha256="sha",
        runs=("a",),
        hidden=Said(hidden, hidden.argmax(axis=1).astype(np.uint8)[None], None),
        test=Said(test, test.argmax(axis=1).astype(np.uint8)[None], np.array(data.array("test_labels"), np.uint8)),
        validation=None,
        hidden_rows=rows,
        hidden_features=np.zeros((len(rows), 3), dtype=np.float32),
        foreign=np.random.default_rng(2).normal(size=len(rows)).astype(np.float32),
        test_rows=test_rows,
        test_features=np.zeros((20, 3), dtype=np.float32),
        examination=remember(FOUND, [], "none"),
    )


def test_three_pictures_are_written(data: Processed, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "submissions"
    written = pictures.draw(answered(data), FOUND, data, folder, "run")
    names = ["run-foreign.png", "run-uncertain.png", "run-answers.png"]
    assert written == [folder / name for name in names] and sorted(p.name for p in folder.iterdir()) == sorted(names)
    for path, width, height in zip(written, (1100, 1100, 1300), (1000, 1000, 400), strict=True):
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width >= width and image.height >= height
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn


def figures(
    monkeypatch: pytest.MonkeyPatch, evidence: Evidence, data: Processed, folder: Path, found: Diagnosis = FOUND
) -> dict[str, "Figure"]:
    """What would be written, by kind."""
    drawn: dict[str, Figure] = {}

    def keep(figure: "Figure", path: Path) -> Path:
        drawn[path.stem.removeprefix("run-")] = figure
        return path

    monkeypatch.setattr(pictures, "_write", keep)
    pictures.draw(evidence, found, data, folder, "run")
    return drawn


def shown(figure: "Figure") -> list[tuple[np.ndarray[Any, Any], str]]:
    """The images and their titles, row by row."""
    return [(np.asarray(axes.images[0].get_array()), axes.get_title()) for axes in figure.axes if axes.images]


def test_images_stand_above_what_they_resemble_most_foreign_or_unsure(
    data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evidence = answered(data)
    drawn = figures(monkeypatch, evidence, data, tmp_path)
    images, ids = data.array("hidden_images"), data.array("hidden_ids")
    train, labels = data.array("train_images"), data.array("train_labels")
    for kind, first in (
        ("foreign", evidence.hidden_rows[evidence.foreign.argmax()]),
        ("uncertain", evidence.hidden.probabilities.max(axis=1).argmin()),
    ):
        found = shown(drawn[kind])
        assert len(found) == 48
        (image, title), (below, resembles) = found[0], found[8]
        assert np.array_equal(image, images[first])
        probabilities = evidence.hidden.probabilities[first]
        name = NAMES[probabilities.argmax()]
        assert title == f"{name} {100 * probabilities.max():.0f} %\nid {ids[first]}"
        near = duplicates.nearest(images[first : first + 1], train)
        assert np.array_equal(below, train[near.rows[0]])
        assert resembles == f"{NAMES[labels[near.rows[0]]]}\nr {near.correlations[0]:.2f}"
    foreignness = dict(zip(ids[evidence.hidden_rows].tolist(), evidence.foreign.tolist(), strict=True))
    order = [
        foreignness[int(title.split()[-1])]
        for row in (0, 16, 32)
        for _, title in shown(drawn["foreign"])[row : row + 8]
    ]
    assert order == sorted(foreignness.values(), reverse=True)[:24]


def test_a_few_images_as_foreign_as_each_other_leave_places_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As shift.foreign judges a single image."""
    data = opened(tmp_path, 3)
    evidence = dataclasses.replace(answered(data), foreign=np.zeros(2, dtype=np.float32))
    with monkeypatch.context() as patched:
        drawn = figures(patched, evidence, data, tmp_path)
    assert [len(shown(drawn[kind])) for kind in ("foreign", "uncertain")] == [2 * 2, 2 * 3]
    monkeypatch.setattr(pictures, "ROWS", 1)
    written = pictures.draw(evidence, FOUND, data, tmp_path / "out", "run")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written) and len(written) == 3


def test_answers_are_counted_in_per_cent(data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pictures, "ROWS", 1)
    evidence = answered(data)
    figure = figures(monkeypatch, evidence, data, tmp_path)["answers"]
    classes, confidence, foreign = figure.axes
    hidden, true = (np.array([bar.get_height() for bar in bars]) for bars in classes.containers)
    assert hidden == pytest.approx(100 * np.bincount(evidence.hidden.labels, minlength=10) / 60)
    assert true == pytest.approx([10.0] * 10)
    assert [tick.get_text() for tick in classes.get_xticklabels()] == list(NAMES)
    for line, said in zip(confidence.lines, (evidence.hidden, evidence.test), strict=True):
        x, y = (np.asarray(values) for values in line.get_data())
        assert x.tolist() == sorted(said.probabilities.max(axis=1).tolist()) and y[-1] == 100
    assert "KS 0.12" in confidence.get_title() and "AUC 0.73" in foreign.get_title()
    assert sum(bar.get_height() for bar in foreign.containers[0]) == 30  # each of the sample, once
    assert "natural: undamaged images that are harder" in figure.get_suptitle()


def test_a_long_reason_is_cut(data: Processed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pictures, "ROWS", 1)
    found = dataclasses.replace(FOUND, reason="long " * 100)
    title = figures(monkeypatch, answered(data), data, tmp_path, found)["answers"].get_suptitle()
    assert len(title) < 150 and title.endswith("…")
