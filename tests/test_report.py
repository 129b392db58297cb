import dataclasses
import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.reporting import figures
from pipeline.store import ledger, runs
from tests import browser
from tests.support import SLUG, error_line, here, paths_in, predicted_place, prepare, serve, stage, tree, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUN, FOLDER = "tiny-run", "data/models/tiny-run/report"
TRAINING, SCORES = {"rate", "accuracy", "loss"}, {"scores", "line"}
IMAGES = {"confusion", "mistakes", "labels", "confidence", "domain", "low-confidence", "out-of-distribution"}


def page(place: Path) -> str:
    """The page as it is in the file."""
    return (place / FOLDER / "index.html").read_text(encoding="utf-8")


def words(place: Path) -> str:
    """What a person reads, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page(place).partition("<body>")[2])).split())


def pictures(place: Path) -> set[str]:
    return {path.stem for path in (place / FOLDER).glob("*.png")}


@pytest.fixture(scope="module", autouse=True)
def _small_pictures() -> Iterator[None]:
    """Which are drawn faster; test_figures looks at one as large as a user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "MOST", 4)
        patch.setattr(figures, "SCALE", 1.0)
        yield


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a run, a scored submission of its CSV, and the report."""
    place = predicted_place(tmp_path_factory.mktemp("place"))
    with serve(place) as kaggle:
        assert here("submit", "--poll", 0.1, cwd=place, environ=kaggle.environment).returncode == 0
    result = here("report", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "index.html" in result.stdout and "file:///" in result.stdout
    return place


def begun(place: Path, done: int) -> Path:
    """A place with a run of which `done` epochs are over, and no manifest yet."""
    prepare(place)
    folder = write_run(place)
    for name in (runs.RESULT, runs.WEIGHTS, "manifest.json"):
        (folder / name).unlink()
    runs.write_metrics(folder / runs.METRICS, runs.read_metrics(folder / runs.METRICS)[:done])
    (place / "data/models" / runs.LATEST).unlink()
    return place


# --- what it says -----------------------------------------------------------------------------------------


def test_the_page_shows_the_result_the_prediction_and_the_score(reported: Path) -> None:
    entries = ledger.read(paths_in(reported).submissions / ledger.NAME)
    scored, predicted = entries[-1], next(e for e in entries if e.predicted is not None)
    shown = words(reported)
    for text in (
        "Local 90.00%",
        "Validation 91.00%",
        f"Predicted on Kaggle {predicted.predicted:.1f}%",
        f"90%: {predicted.predicted_low:.1f} to {predicted.predicted_high:.1f}%",
        f"Kaggle, public {scored.public:.2f}% private {scored.private:.2f}%",
        f"Gap {scored.gap_public:.2f} points local minus public",
        "78,330 trainable, of 5,000,000 allowed",
        "stage 3 3 64 x 4 x 4 57,728",
        "python -m pipeline.predict --run tiny-run-again --tta none --adapt auto",
        "python -m pipeline.train --competition tiny --preset rehearsal --run tiny-run-again",
        "epochs 12",
    ):
        assert text in shown, text


def test_one_file_holds_all_figures_and_each_is_a_picture_beside_it(reported: Path) -> None:
    text = page(reported)
    assert pictures(reported) == TRAINING | SCORES | IMAGES
    assert text.count('src="data:image/png;base64,') == len(TRAINING | SCORES | IMAGES)
    assert not re.search(r'(src|href)="(?!data:)', text) and "url(" not in text


def test_the_same_is_not_written_again_and_what_has_changed_is(reported: Path, tmp_path: Path) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    before = tree(place / FOLDER)
    again = here("report", cwd=place)
    assert "nothing to do" in again.stdout and "file:///" in again.stdout
    assert tree(place / FOLDER) == before
    book = paths_in(place).submissions / ledger.NAME
    ledger.append(book, [dataclasses.replace(ledger.read(book)[-1], public=12.34)])
    assert "nothing to do" not in here("report", cwd=place).stdout and "12.34" in words(place)
    assert "nothing to do" not in here("report", "--force", cwd=place).stdout


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_reads_on_a_screen(reported: Path, window: "Page", width: int, scheme: browser.Scheme) -> None:
    assert browser.problems(window, reported / FOLDER / "index.html", width, scheme) == []


def test_a_run_half_way_reads_as_well(tmp_path: Path, window: "Page") -> None:
    assert here("report", cwd=begun(tmp_path, 2)).returncode == 0
    assert browser.problems(window, tmp_path / FOLDER / "index.html", 390, "light") == []


# --- what is not there yet --------------------------------------------------------------------------------


def test_half_way_through_a_run_it_shows_what_there_is(tmp_path: Path) -> None:
    result = here("report", cwd=begun(tmp_path, 2))
    assert result.returncode == 0 and "not finished" in result.stdout
    assert pictures(tmp_path) == TRAINING
    shown = words(tmp_path)
    assert "`python -m pipeline.train --competition tiny --preset rehearsal --run tiny-run` goes on" in result.stdout
    assert "Progress 2 of 12 epochs 0:00:50 left" in shown
    assert "Validation so far 82.00%" in shown and "Local" not in shown


def test_before_the_first_epoch_has_ended(tmp_path: Path) -> None:
    assert here("report", "--run", RUN, cwd=begun(tmp_path, 0)).returncode == 0
    assert "No epoch has ended yet" in words(tmp_path) and pictures(tmp_path) == set()


def test_before_anything_is_predicted_it_says_how(tmp_path: Path) -> None:
    prepare(tmp_path)
    write_run(tmp_path)
    result = here("report", cwd=tmp_path)
    assert result.returncode == 0 and "python -m pipeline.predict --run tiny-run" in result.stdout
    assert pictures(tmp_path) == TRAINING and "Nothing has been submitted yet" in words(tmp_path)


def test_before_anything_is_submitted_the_prediction_is_drawn(tmp_path: Path) -> None:
    place = predicted_place(tmp_path)
    assert here("report", cwd=place).returncode == 0
    assert pictures(place) == TRAINING | IMAGES | SCORES
    assert "Predicted on Kaggle" in words(place) and "Kaggle, public" not in words(place)


def test_predictions_of_other_weights_are_not_the_runs(tmp_path: Path) -> None:
    place = predicted_place(tmp_path)
    shutil.rmtree(place / "data/models" / RUN)
    write_run(place, seed=1)
    result = here("report", cwd=place)
    assert result.returncode == 0 and "No predictions are shown" in result.stdout
    assert pictures(place) == TRAINING


def test_without_the_images_the_rest_is_shown(tmp_path: Path) -> None:
    place = predicted_place(tmp_path)
    shutil.rmtree(place / "data/processed")
    result = here("report", cwd=place)
    assert result.returncode == 0 and "python -m pipeline.preprocess" in result.stdout
    assert pictures(place) == TRAINING | SCORES


def test_images_that_are_others_by_now_are_not_shown(reported: Path, tmp_path: Path) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    other = prepare(tmp_path / "other", hidden=10)
    shutil.rmtree(place / "data/processed")
    shutil.copytree(other / "data/processed", place / "data/processed")
    result = here("report", cwd=place)
    assert result.returncode == 0 and "holds other images than submissions/tiny-run.csv is of" in result.stdout
    assert pictures(place) == TRAINING | SCORES
    line = error_line(here("check", "--pictures", "drawn", "--csv", "submissions/tiny-run.csv", "--competition", SLUG,
                           cwd=place), 4)  # fmt: skip
    assert "holds other images" in line and not list(place.glob("drawn/*"))


# --- errors -----------------------------------------------------------------------------------------------


def test_without_a_run_it_names_train(tmp_path: Path) -> None:
    assert "python -m pipeline.train" in error_line(stage("report", cwd=tmp_path), 3)


@pytest.mark.parametrize("out", ["submissions", ".", "/", "data/models/tiny-run/report"])
def test_a_folder_with_other_files_is_not_replaced(reported: Path, tmp_path: Path, out: str) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    (place / FOLDER / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    line = error_line(here("report", "--out", out, cwd=place), 2)
    assert "which is not a report's" in line and tree(tmp_path) == before


def test_a_folder_of_ones_own_is_made_and_then_replaced(tmp_path: Path) -> None:
    place = begun(tmp_path, 1)
    for _ in range(2):
        assert here("report", "--out", "new/page", cwd=place).returncode == 0
        assert {path.stem for path in (place / "new/page").iterdir()} == {"index", *TRAINING}


def test_a_name_that_is_nearly_right_is_suggested(reported: Path) -> None:
    assert "did you mean tiny-run?" in error_line(here("report", "--run", "tiny", cwd=reported), 3)


def test_a_damaged_file_is_named_and_the_old_report_stays(reported: Path, tmp_path: Path) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    before = tree(place / FOLDER)
    (place / "data/models" / RUN / runs.METRICS).write_text("{}\n" * 100)
    line = error_line(here("report", cwd=place), 4)
    assert runs.METRICS in line and tree(place / FOLDER) == before
