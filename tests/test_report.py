import dataclasses
import functools
import html
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.reporting import figures
from pipeline.reporting import page as reporting_page
from pipeline.reporting.figures import Picture
from pipeline.reporting.page import Material
from pipeline.store import atomic, ledger, runs
from tests import browser
from tests.places import begin, finish
from tests.support import SLUG, error_line, here, paths_in, predicted_place, prepare, tree, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUN, FOLDER = "tiny-run", "data/models/tiny-run/report"
TRAINING, SCORES = {"Accuracy", "Loss (cross entropy)"}, {"Kaggle score against holdout accuracy"}
IMAGES = {"Confusion", "Classes", "Images below each confidence", "Most confident mistakes", "Lowest confidence",
          "Least like the holdout"}  # fmt: skip
NO_PICTURES: dict[str, list[Picture]] = {"gap": [], "training": [], "holdout": [], "hidden": []}


def page(place: Path) -> str:
    """The page as it is in the file."""
    return (place / FOLDER / "index.html").read_text(encoding="utf-8")


def words(place: Path) -> str:
    """What a person reads, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page(place).partition("<body>")[2])).split())


def pictures(place: Path) -> set[str]:
    """The figures by the first words of what they show."""
    return {alt.partition(".")[0].partition(",")[0] for alt in re.findall(r'<img [^>]*alt="([^"]*)"', page(place))}


@pytest.fixture(scope="module", autouse=True)
def _small_pictures() -> Iterator[None]:
    """Which are drawn faster; test_figures looks at one as large as a user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FIRST", 1)
        patch.setattr(figures, "MOST", 2)
        patch.setattr(figures, "SCALE", 1.0)
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have no pictures, which take most of their time."""
    monkeypatch.setattr(reporting_page, "draw", lambda _known: NO_PICTURES)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a run, a scored submission of its CSV, and the report."""
    place = predicted_place(tmp_path_factory.mktemp("place"))
    path = place / "submissions/ledger.csv"
    (predicted,) = ledger.read(path)
    scored = dataclasses.replace(predicted, ref=7, public=66.67, private=70.0, status="complete", predicted=None)
    ledger.append(path, [scored])
    result = here("report", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "index.html" in result.stdout and "file:///" in result.stdout
    return place


def begun(place: Path, done: int, **recipe: Any) -> Path:
    """A place with a run of which `done` epochs are over, and no manifest yet."""
    begin(prepare(place), RUN, done=done, **recipe)
    return place


# --- what it says -----------------------------------------------------------------------------------------


def test_the_page_says_what_matters_first(reported: Path) -> None:
    guess = next(e for e in ledger.read(paths_in(reported).submissions / ledger.NAME) if e.predicted is not None)
    shown, place = words(reported), 0
    for text in (
        "tiny-run (rehearsal), ",
        "model rehearsal, 78,330 parameters, 12 epochs, learning rate 0.001, batch 64, seed 0",
        f"Public 66.67% predicted {guess.predicted:.1f}% ({guess.predicted_low:.0f}\u2011{guess.predicted_high:.0f}), "
        f"{66.67 - (guess.predicted or 0):.1f} points too low "
        "Private 70.00% Holdout 90.00% test_batch Gap 23.33 points, ",
        "Cause: ",
        "What to do next",
        "Scores, % swipe for more → run public private holdout gap predicted status",
        "tiny-run 66.67 70.00 90.00 23.33 ",
        "Training",
        "validation 91.00% in epoch ",
        "Errors on the holdout More images",
        "Test set More images",
        "Reproduce",
        "python -m pipeline.train --competition tiny --preset rehearsal --run tiny-run-again",
        "python -m pipeline.predict --run tiny-run-again --tta none --adapt auto",
        "epochs 12",
    ):
        assert (place := shown.find(text, place)) >= 0, text
    folded = "".join(re.findall(r"<details>.*?</details>", page(reported), re.DOTALL))
    assert folded.count("<img ") == 3 and ">Runs " not in shown  # there is one run


def test_the_run_stands_beside_the_earlier_ones(reported: Path, tmp_path: Path, undrawn: None) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    name = finish(place, "rehearsal-0123abcd-s1", seed=1, validation=92.0).name
    assert "nothing to do" not in here("report", "--run", RUN, cwd=place).stdout  # it lacks a run
    rows = re.findall(r"<tr( class=\"own\")?><td>([^<]*)</td><td>rehearsal</td><td class", page(place))
    assert {(bool(own), run) for own, run in rows} == {(True, RUN), (False, name)}
    assert here("report", cwd=place).returncode == 0
    title = re.search(r"<title>(.*?)</title>", (place / f"data/models/{name}/report/index.html").read_text())
    assert title and re.fullmatch(r"Preset rehearsal, best and newest of 2 runs, \d+ \w+ \d{4}: report", title[1])


def test_one_file_holds_all_figures(reported: Path) -> None:
    text = page(reported)
    assert pictures(reported) == TRAINING | SCORES | IMAGES and [*tree(reported / FOLDER)] == ["index.html"]
    assert text.count('src="data:image/png;base64,') == len(TRAINING | SCORES | IMAGES) + 3  # which are folded away
    assert not re.search(r'(src|href)="(?!data:)', text) and "url(" not in text


def test_the_same_is_not_written_again_and_what_has_changed_is(
    reported: Path, tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    before, path = tree(place / FOLDER), paths_in(place).submissions / ledger.NAME
    again = here("report", cwd=place)
    assert "nothing to do" in again.stdout and "file:///" in again.stdout
    assert tree(place / FOLDER) == before

    def draw_meanwhile(known: Material) -> dict[str, list[Picture]]:
        ledger.append(path, [dataclasses.replace(ledger.read(path)[-1], public=56.78)])
        return NO_PICTURES

    with monkeypatch.context() as patch:
        patch.setattr(reporting_page, "draw", draw_meanwhile)
        assert "nothing to do" not in here("report", "--force", cwd=place).stdout and not pictures(place)
    with atomic.lock(place / FOLDER / "index.html"):
        assert "is at work" in error_line(here("report", cwd=place), 2)
    # What came while it was written was not in it, so it is out of date
    assert "nothing to do" not in here("report", cwd=place).stdout and "56.78" in words(place)


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_reads_on_a_screen(reported: Path, window: "Page", width: int, scheme: browser.Scheme) -> None:
    assert browser.problems(window, reported / FOLDER / "index.html", width, scheme) == []


def test_a_run_half_way_reads_as_well(tmp_path: Path, window: "Page") -> None:
    assert here("report", cwd=begun(tmp_path, 2)).returncode == 0
    assert browser.problems(window, tmp_path / FOLDER / "index.html", 390, "light") == []


# --- what is not there yet --------------------------------------------------------------------------------


def unpredicted(place: Path) -> Path:
    write_run(prepare(place))
    return place


def trained_again(place: Path) -> Path:
    """The CSV's run has other weights by now."""
    shutil.rmtree(predicted_place(place) / "data/models" / RUN)
    write_run(place, seed=1)
    return place


def without_images(place: Path) -> Path:
    shutil.rmtree(predicted_place(place) / "data/processed")
    return place


def with_other_images(place: Path) -> Path:
    processed = without_images(place) / "data/processed"
    shutil.copytree(prepare(place / "other", hidden=10) / "data/processed", processed)
    return place


@pytest.mark.parametrize(
    ("make", "said", "drawn", "shown"),
    [
        (functools.partial(begun, done=0), "not finished", set(), "No epoch has ended yet"),
        (
            functools.partial(begun, done=2),
            "`python -m pipeline.train --competition tiny --preset rehearsal --run tiny-run` resumes it",
            TRAINING,
            "Validation so far 62.00% best epoch Progress 2 of 12 epochs; 10m 0s left",
        ),
        (
            functools.partial(begun, done=2, trial="mine"),
            "not finished; it is a trial: the command of sweep mine resumes it.",
            TRAINING,
            "Progress 2 of 12 epochs",
        ),
        (
            functools.partial(begun, done=2, preset="older"),
            "not finished, and preset older with rehearsal is of another version of the pipeline.",
            TRAINING,
            "Progress 2 of 12 epochs",
        ),
        (
            unpredicted,
            "python -m pipeline.predict --run tiny-run",
            TRAINING,
            "Holdout 90.00% test_batch Validation 91.00%",
        ),
        (
            predicted_place,
            "index.html",
            TRAINING | IMAGES | SCORES,
            "doubt: only 30 test images Private - not submitted Holdout",
        ),
        (trained_again, "No predictions are shown", TRAINING, "Holdout 90.00%"),
        (without_images, "python -m pipeline.preprocess", TRAINING | SCORES, "Public, predicted "),
        (
            with_other_images,
            "holds other images than submissions/tiny-run.csv is of",
            TRAINING | SCORES,
            "Gap, predicted ",
        ),
    ],
)
def test_what_there_is_is_shown(
    tmp_path: Path, make: Callable[[Path], Path], said: str, drawn: set[str], shown: str
) -> None:
    place = make(tmp_path)
    result = here("report", "--run", RUN, cwd=place)
    assert result.returncode == 0 and said in result.stdout
    assert pictures(place) == drawn and shown in words(place) and "Public 6" not in words(place)


def test_pictures_of_other_images_are_refused(tmp_path: Path) -> None:
    place = with_other_images(tmp_path)
    csv = ("--csv", "submissions/tiny-run.csv", "--competition", SLUG)
    line = error_line(here("check", "--pictures", "drawn", *csv, cwd=place), 4)
    assert "holds other images" in line and not list(place.glob("drawn/*"))


# --- errors -----------------------------------------------------------------------------------------------


def test_a_folder_of_ones_own_gets_the_page_and_nothing_of_its_owner_is_replaced(tmp_path: Path, undrawn: None) -> None:
    place = begun(tmp_path, 1)
    (place / "mine").mkdir()
    (place / "mine/notes.txt").write_text("mine")
    for _ in range(2):
        assert here("report", "--out", "mine", cwd=place).returncode == 0
    assert [*tree(place / "mine")] == ["index.html", "notes.txt"] and not (place / ".mine.lock").exists()
    (place / "mine/index.html").write_text("<p>mine</p>")
    assert "is not a report's" in error_line(here("report", "--out", "mine", "--force", cwd=place), 2)


def test_a_damaged_file_is_named_and_the_old_report_stays(reported: Path, tmp_path: Path) -> None:
    place = shutil.copytree(reported, tmp_path / "place", symlinks=True)
    before = tree(place / FOLDER)
    (place / "data/models" / RUN / runs.METRICS).write_text("{}\n" * 100)
    line = error_line(here("report", cwd=place), 4)
    assert runs.METRICS in line and tree(place / FOLDER) == before
