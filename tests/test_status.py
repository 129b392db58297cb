"""The command through its real command line, beside what the stages have left; see tests/places.py."""

import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DEFAULT_COMPETITION
from pipeline.store import atomic, ledger, runs
from pipeline.store.manifest import NAME as MANIFEST
from tests.places import answer, begin, finish, note, report
from tests.support import ROOT, SLUG, clean_environment, error_line, here, prepare

NEXT = ("next: ", "then: ")
CHECK = "check --competition tiny"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download and preprocess are done."""
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared / "data", tmp_path / "data")
    return tmp_path


@pytest.fixture
def submitted(place: Path) -> Path:
    """A finished run whose CSV has a score."""
    finish(place, "mine")
    note(answer(place, "mine"), ledger.COMPLETE, public=80.0)
    return place


def shown(place: Path, *arguments: str, slug: str | None = SLUG) -> list[str]:
    """The screen's lines; nothing may have changed, and nothing gone wrong."""
    before = {path: path.lstat().st_mtime for path in place.rglob("*")}
    named = [] if slug is None else ["--competition", slug]
    done = here("status", *named, *arguments, cwd=place)
    assert done.returncode == 0, done
    assert {path: path.lstat().st_mtime for path in place.rglob("*")} == before
    return done.stdout.splitlines()


def following(place: Path, *arguments: str, **options: Any) -> str:
    """The command that comes next, without `python -m pipeline.`; its stage must know the options."""
    (line,) = [line for line in shown(place, *arguments, **options) if line.startswith(NEXT)]
    words = shlex.split(line[len(NEXT[0]) :].rpartition(" -- ")[2])
    assert words[:2] == ["python", "-m"]
    importlib.import_module(words[2]).command.make_context("stage", words[3:])
    return shlex.join([words[2].removeprefix("pipeline."), *words[3:]])


def line(place: Path, name: str) -> str:
    """What is on the screen beside `name`, of a table its newest row; without the space between columns."""
    screen = shown(place)
    (at,) = [k for k, text in enumerate(screen) if text.startswith(f"{name:<12}")]
    table = screen[at].split()[-1] in ("time", "here")
    return " ".join(screen[at + table].split()[not table :])


# --- from nothing to a submission -------------------------------------------------------------------------


def test_an_empty_clone_is_told_how_to_begin_and_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from pipeline import status; code = status.main([]); print(sorted(sys.modules)); sys.exit(code)"
    )
    environ = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    *screen, modules = done.stdout.splitlines()
    assert screen[-3:] == [
        "next: python -m pipeline.download",
        "      (nothing is here yet)",
        "      (or try it offline first: ./run_all.sh --rehearsal)",
    ]
    heavy = ("torch", "pandas", "scipy", "sklearn", "matplotlib", "optuna", "kaggle")
    assert not [name for name in heavy if f"'{name}'" in modules]
    assert not list(tmp_path.iterdir()) and not done.stderr


def test_each_stage_follows_on_the_one_before(prepared: Path, tmp_path: Path) -> None:
    """The whole way; each command is one that its stage understands."""
    assert following(tmp_path) == "download --competition tiny"
    shutil.copytree(prepared / "data/raw", tmp_path / "data/raw")
    assert line(tmp_path, "raw").startswith("complete: 8 files, ")
    assert following(tmp_path) == "preprocess --competition tiny"
    shutil.copytree(prepared / "data/processed", tmp_path / "data/processed")
    assert line(tmp_path, "processed") == "complete: 100 training, 20 holdout, 30 test images"
    assert following(tmp_path) == "train --competition tiny"

    folder = begin(tmp_path, done=3)
    with atomic.lock(folder):
        begun = f"{folder.name} rehearsal 3/12 3m 0s training, 9m 0s left, validation 63.00% at 20"
        assert line(tmp_path, "runs").startswith(begun)
        assert following(tmp_path) == "predict"
        assert any(text.startswith("then: ") for text in shown(tmp_path))
    assert f"{folder.name} rehearsal 3/12 3m 0s interrupted, validation 63.00% at 20" in line(tmp_path, "runs")
    assert following(tmp_path) == "train --competition tiny --preset rehearsal"

    finish(tmp_path)
    assert line(tmp_path, "runs") == f"{folder.name} rehearsal 12 90.00% 1m 0s latest"
    assert following(tmp_path) == "predict"
    csv = answer(tmp_path, folder.name)
    note(csv, ledger.PREDICTED)
    assert line(tmp_path, "CSVs") == f"{csv.name} 90.00% 82.50% not submitted"
    assert following(tmp_path) == f"submit --csv submissions/{csv.name}"
    note(csv, ledger.SENDING, ref=None)
    assert "sending" in line(tmp_path, "CSVs")
    assert following(tmp_path) == f"submit --csv submissions/{csv.name}"
    note(csv, ledger.PENDING)
    assert following(tmp_path) == CHECK
    note(csv, ledger.COMPLETE, public=82.0)
    note(csv, ledger.ERROR, ref=None)  # sent again, and refused
    assert line(tmp_path, "CSVs") == f"{csv.name} 90.00% 82.50% 82.00% 1 complete"
    assert line(tmp_path, "runs") == f"{folder.name} rehearsal 12 90.00% 82.00% 1m 0s latest"
    assert line(tmp_path, "ledger").startswith("best public 82.00%, 1 submission, ")
    assert line(tmp_path, "report").startswith("absent: ") and following(tmp_path) == "report"
    report(folder)
    assert line(tmp_path, "report") == f"complete: data/models/{folder.name}/report/index.html"
    assert following(tmp_path) == CHECK


def test_a_download_is_seen_interrupted_under_way_and_laid_out_by_hand(place: Path) -> None:
    raw = place / "data/raw"
    (raw / SLUG / "manifest.json").unlink()
    assert line(place, "raw") == "complete: laid out by hand"
    assert line(place, "processed").startswith("complete: ")  # of what was laid out, no record says otherwise
    shutil.rmtree(place / "data/processed")
    (raw / "cifar_test_nolabel.pkl").write_bytes((raw / SLUG / "cifar_test_nolabel.pkl").read_bytes())
    shutil.rmtree(raw / SLUG)
    assert following(place) == "preprocess --competition tiny"  # as preprocess takes it
    (raw / "cifar_test_nolabel.pkl").unlink()
    (raw / ".tiny.download").mkdir()
    (raw / ".tiny.download/tiny.zip").write_bytes(bytes(1_500_000))
    assert line(place, "raw") == "interrupted: after 1.5 MB"
    assert following(place) == "download --competition tiny"
    with atomic.lock(raw / SLUG):
        assert line(place, "raw") == "under way: the download is running"
        assert following(place) == "preprocess --competition tiny"
    with atomic.lock(place / "data/processed" / SLUG):
        assert line(place, "processed") == "under way: preprocess is running"
        assert following(place) == "train --competition tiny"


# --- stale --------------------------------------------------------------------------------------------------


def test_another_download_makes_arrays_runs_and_csvs_stale_one_after_the_other(submitted: Path, tmp_path: Path) -> None:
    other = prepare(tmp_path / "other", seed=50)
    for kind in ("raw", "processed"):
        shutil.rmtree(submitted / f"data/{kind}")
        shutil.copytree(other / f"data/{kind}", submitted / f"data/{kind}")
        if kind == "raw":
            assert line(submitted, "processed").endswith("made of another download")
            assert following(submitted) == "preprocess --competition tiny"
    assert line(submitted, "runs") == "mine rehearsal 12 90.00% 80.00% 1m 0s stale, latest"
    assert line(submitted, "CSVs").endswith("80.00% 1 stale: of another test set")
    assert following(submitted) == "train --competition tiny --preset rehearsal"


def test_a_csv_that_is_not_what_its_run_predicts_is_stale(place: Path) -> None:
    finish(place, "mine")
    csv = answer(place, "mine")
    assert following(place) == "submit --csv submissions/mine.csv"
    atomic.partial(csv).touch()
    assert "stale: predict was interrupted" in line(place, "CSVs") and following(place) == "predict"
    atomic.partial(csv).unlink()
    finish(place, "mine", weights="other")
    note(csv, ledger.COMPLETE, public=80.0)  # the former weights'
    assert "stale: mine was trained again" in line(place, "CSVs") and following(place) == "predict"
    assert line(place, "runs") == "mine rehearsal 12 90.00% 1m 0s latest"
    csv.write_text("3,4\n")
    assert "stale: edited by hand" in line(place, "CSVs")
    assert following(place) == "predict --out submissions/mine-2.csv"  # and never --force over somebody's work


@pytest.mark.parametrize("changed", ["metrics.jsonl", "../../../submissions/mine.json"])
def test_a_report_is_stale_when_what_it_shows_has_changed(submitted: Path, changed: str) -> None:
    page = report(submitted / "data/models/mine")
    assert line(submitted, "report").startswith("complete: ") and following(submitted) == CHECK
    os.utime(page.parent.parent / changed, (time.time() + 9, time.time() + 9))
    assert line(submitted, "report").startswith("stale: ") and following(submitted) == "report"


def test_a_csv_that_is_predicted_below_the_best_score_is_not_to_be_submitted(submitted: Path) -> None:
    finish(submitted, "worse", seed=1)
    note(answer(submitted, "worse"), ledger.PREDICTED)  # 80 to 85
    assert following(submitted) == "submit --csv submissions/worse.csv"
    note(submitted / "submissions/mine.csv", ledger.COMPLETE, public=85.5)
    assert following(submitted) == "report"
    report(submitted / "data/models/worse")
    below = "predicted below your best score, 85.50%"
    assert following(submitted) == CHECK and f"don't submit submissions/worse.csv: {below}" in shown(submitted)[-1]
    refused = here("submit", "--csv", "submissions/worse.csv", cwd=submitted)  # without asking Kaggle
    first, _next = refused.stdout.splitlines()
    assert refused.returncode == 0
    assert first == f"submissions/worse.csv (not submitted): {below} (--again submits it)"


# --- which run, which recipe, which competition -------------------------------------------------------------


def test_what_cannot_be_scored_is_not_submitted_again_and_what_is_gone_is_not_waited_for(submitted: Path) -> None:
    note(submitted / "submissions/mine.csv", ledger.ERROR)
    assert "error" in line(submitted, "CSVs") and following(submitted) == "report"
    csv = answer(submitted, "mine", csv="other.csv")
    note(csv, ledger.SENDING, ref=None)
    csv.unlink()  # predicted again, say, with other options
    assert following(submitted) == "report"


def test_an_interrupted_run_goes_on_with_its_own_options(place: Path) -> None:
    begin(place, "mine", seed=3, learning_rate=0.0125, teachers=("a@0", "b@1"), pseudo_labels="submissions/x.csv@2")
    assert following(place) == (
        "train --competition tiny --preset rehearsal --seed 3 --learning-rate 0.0125 --teacher a b "
        "--pseudo-labels submissions/x.csv --rules-allow-pseudo-labels --run mine"
    )


def test_an_interrupted_run_of_another_version_is_not_resumed(place: Path) -> None:
    begin(place, "old", preset="older")
    assert following(place) == "train --competition tiny --force"


def test_without_latest_the_newest_run_is_named(submitted: Path) -> None:
    (submitted / "data/models" / runs.LATEST).write_text("other")
    assert following(submitted) == "report --run mine"
    (submitted / "submissions/mine.csv").unlink()
    assert following(submitted) == "predict --run mine"


def test_after_several_seeds_their_average_is_what_comes_next(submitted: Path) -> None:
    finish(submitted, "other", seed=1)
    runs.point_latest(submitted / "data/models", "other", "mine")
    assert following(submitted) == "predict"  # though the CSV of `mine` is submitted
    line = error_line(here("submit", cwd=submitted, environ={**clean_environment(), "KAGGLE_API_TOKEN": "t"}), 3)
    assert "is the average of other, mine: run `python -m pipeline.predict`" in line
    csv = answer(submitted, "other", "mine", csv="both.csv")
    assert following(submitted) == f"submit --csv {csv.relative_to(submitted)}"
    (submitted / "data/models/other" / MANIFEST).unlink()  # is trained again
    assert following(submitted) == "report --run mine"


def test_trials_are_never_the_latest_and_the_best_is_marked(place: Path) -> None:
    finish(place, "t-0", trial="t", seed=5)
    assert "a trial" in line(place, "runs") and "LATEST" not in "".join(shown(place))
    assert following(place) == "train --competition tiny"
    finish(place, "good", validation=95.0)
    finish(place, "last", seed=1)
    finish(place, "t-1", trial="t", validation=99.0, seed=6)
    assert following(place) == "predict"
    known = json.loads("\n".join(shown(place, "--json")))["runs"]
    marks = {run["name"]: [mark for mark in ("latest", "best", "trial") if run[mark]] for run in known}
    assert marks == {"good": ["best"], "last": ["latest"], "t-0": ["trial"], "t-1": ["trial"]}
    runs.point_latest(place / "data/models", "t-1")  # by hand
    assert following(place).startswith("predict --run ")
    assert "name one with --run" in here("predict", cwd=place).stderr


def test_a_network_over_the_budget_is_not_to_be_submitted(place: Path) -> None:
    finish(place, "mine", parameters=6_000_000)
    assert "over the limit" in line(place, "runs")
    assert following(place) == "report"


def test_who_only_rehearsed_finds_the_rehearsal(prepared: Path, tmp_path: Path) -> None:
    for kind in ("raw", "processed"):
        shutil.copytree(prepared / f"data/{kind}/{SLUG}", tmp_path / f"data/{kind}/rehearsal-digits")
    said = f"no files for {DEFAULT_COMPETITION}; using rehearsal-digits, the only competition found"
    assert here("status", cwd=tmp_path).stderr == f"{said}\n"
    assert following(tmp_path, slug=None) == "train --competition rehearsal-digits --preset rehearsal"
    (tmp_path / "data/raw/no competition").mkdir()
    asked = shown(tmp_path, slug=DEFAULT_COMPETITION)
    assert asked[0].split() == ["competition", DEFAULT_COMPETITION]
    assert "also here   rehearsal-digits" in asked


# --- damage, many things, programs --------------------------------------------------------------------------

DAMAGE = {  # of a file: the cure that is shown, and the next command
    "data/raw/tiny/manifest.json": ("--force", CHECK),
    "data/processed/tiny/manifest.json": ("--force", "preprocess --competition tiny --force"),
    "data/models/mine/config.json": ("--force", "train --competition tiny --force"),
    "data/models/mine/result.json": ("--force", "train --competition tiny --force --preset rehearsal --run mine"),
    "data/models/mine/manifest.json": ("--force", "train --competition tiny --force --preset rehearsal --run mine"),
    "data/models/LATEST": ("--run", f"{CHECK} --csv submissions/mine.csv"),
    "submissions/mine.json": ("python -m pipeline.predict", "predict --out submissions/mine-2.csv"),
    "submissions/ledger.csv": ("restore it or move the file away", CHECK),
}


@pytest.mark.parametrize("content", ["", "\x1b[31m\n"])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_shown_with_its_cure_and_what_comes_next(submitted: Path, name: str, content: str) -> None:
    page = report(submitted / "data/models/mine")
    (submitted / name).write_text(content)
    for path in (page, submitted / name):
        os.utime(path, (time.time() + 9, time.time() + 9))
    text = "\n".join(shown(submitted))
    assert "\x1b" not in text
    if content or not name.endswith("csv"):  # an empty ledger is none
        cure, command = DAMAGE[name]
        assert "damaged" in text and Path(name).stem in text and cure in text
        assert following(submitted) == command
        assert ("then: " in text) == name.endswith("csv")
        assert "not submitted" not in text


def test_missing_files_are_damage(place: Path) -> None:
    run = finish(place, "mine")
    (run / runs.WEIGHTS).unlink()
    assert following(place) == "train --competition tiny --force --preset rehearsal --run mine"
    (run / runs.CONFIG).unlink()
    assert line(place, "runs").startswith("mine damaged, latest, data/models/mine/config.json is missing: train")
    assert following(place) == "train --competition tiny --force"
    (place / "data/processed/tiny/hidden_ids.npy").unlink()
    assert following(place) == "preprocess --competition tiny --force"
    assert line(place, "processed").startswith("damaged: data/processed/tiny/hidden_ids.npy is missing")
    (place / "data/raw/tiny/cifar_test_nolabel.pkl").unlink()
    source = json.loads((place / "data/raw/tiny/manifest.json").read_text())["inputs"]["source"]
    assert following(place) == f"download --competition tiny --force --from {source}"


def test_links_to_a_disk_that_is_not_there_are_nothing(submitted: Path) -> None:
    for path in (submitted / "data/raw/tiny", submitted / "submissions/mine.csv"):
        with atomic.lock(path):
            path.rename(submitted / path.name)
        path.symlink_to("/mnt/elsewhere")
    assert line(submitted, "raw").startswith("absent") and line(submitted, "CSVs") == "none yet"


def test_a_copied_run_is_damage(place: Path) -> None:
    shutil.copytree(finish(place, "mine"), place / "data/models/mine copy")
    text = "\n".join(shown(place))
    assert "mine copy" in text and "a name of letters" in text


def test_a_screen_is_enough_for_very_much(place: Path) -> None:
    names = [f"a-very-long-name-for-a-run-{'x' * 80}-{k}" for k in range(12)]
    for name in names:
        finish(place, name)
        answer(place, name)
    answer(place, *names, csv="\x1b]0;y" * 20 + ".csv")
    screen = shown(place)
    assert len(screen) <= 29 and max(map(len, screen[3:21])) <= 100
    assert "and 2 more" in screen[14] and "and 9 more" in screen[20]
    assert "\x1b" not in "".join(screen)
