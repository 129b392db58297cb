"""What people do wrong, through the real command line: what they read, the exit code, and that nothing is lost."""

import itertools
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.store import runs
from tests.hostile.mistakes import CSV, RENAMED, RUN, TABLES, Mistake, move, remove
from tests.support import SLUG, clean_environment, error_line, here, serve, stage, tree, write_run

# Where a stage goes on to Kaggle although it should not, nobody answers.
NOWHERE = {"KAGGLE_API_TOKEN": "a-token", **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")}


Stage = Callable[..., "subprocess.CompletedProcess[str]"]


def must_be_told(run: Stage, place: Path, mistake: Mistake) -> None:
    """Run the command after the mistake: it must end as the row says, and change nothing."""
    mistake.does(place)
    before = tree(place)
    module, *arguments = shlex.split(mistake.command)
    result = run(module, *arguments, cwd=place, environ={**clean_environment(), **NOWHERE})
    line = error_line(result, mistake.code)
    assert mistake.says in line
    assert result.stderr.splitlines()[-1] == line
    assert tree(place) == before


@pytest.mark.parametrize("mistake", [*itertools.chain(*TABLES)], ids=lambda mistake: mistake.name)
def test_a_mistake_is_told_with_its_cure_and_nothing_is_lost(place: Path, mistake: Mistake) -> None:
    must_be_told(here, place, mistake)


@pytest.mark.parametrize("mistake", [table[0] for table in TABLES], ids=lambda mistake: mistake.name)
def test_it_is_told_in_an_interpreter_of_its_own_as_well(place: Path, mistake: Mistake) -> None:
    must_be_told(stage, place, mistake)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("preprocess", 3, "python -m pipeline.download"),
        ("train", 3, "python -m pipeline.preprocess"),
        ("sweep --search seed=1,2", 3, "python -m pipeline.preprocess"),
        ("predict", 3, "python -m pipeline.train"),
        ("predict --run pretrained", 3, "python -m pipeline.train"),
        ("submit", 3, "python -m pipeline.train"),
        ("submit --csv sub.csv", 3, "python -m pipeline.predict --out sub.csv"),
    ],
)
def test_a_stage_that_comes_too_early_names_the_one_to_run_first(
    tmp_path: Path, command: str, code: int, says: str
) -> None:
    module, *arguments = command.split()
    result = here(module, *arguments, cwd=tmp_path, environ={**clean_environment(), **NOWHERE})
    assert says in error_line(result, code)
    assert tree(tmp_path) == {}


def test_a_check_that_comes_too_early_says_what_writes_a_csv(tmp_path: Path) -> None:
    result = here("check", cwd=tmp_path)
    assert result.returncode == 0
    assert "there is no CSV to submit; `python -m pipeline.predict` writes one" in result.stdout
    assert tree(tmp_path) == {}


# --- what goes well all the same ------------------------------------------------------------------------------


def test_a_renamed_run_predicts_under_its_new_name(place: Path) -> None:
    old = (place / CSV).read_bytes()
    RENAMED(place)
    assert here("predict", "--run", "other-name", cwd=place).returncode == 0
    assert (place / "submissions/other-name.csv").read_bytes() == old == (place / CSV).read_bytes()


def test_a_run_in_another_folder_is_found_there(place: Path) -> None:
    move("data/models", "elsewhere")(place)
    assert "nothing to do" in here("predict", "--models", "elsewhere", cwd=place).stdout


def test_a_csv_outlives_its_run(place: Path) -> None:
    remove(RUN)(place)
    result = here("check", "--competition", SLUG, cwd=place)
    assert result.returncode == 0
    assert f"kaggle competitions submit -c {SLUG} -f {CSV}" in result.stdout


def test_the_names_that_may_be_meant_are_few(place: Path) -> None:
    for k in range(12):
        shutil.copytree(place / RUN, place / f"data/models/study-{k:02}")
    line = error_line(here("predict", "--run", "stud", cwd=place), 3)
    assert line.endswith(
        "did you mean study-00, study-01, study-02, study-03, study-04, study-05, study-06, study-07 and 4 more?"
    )
    assert "there is no run x" in error_line(here("predict", "--run", "x", cwd=place), 3)


# --- with Kaggle ----------------------------------------------------------------------------------------------


def test_a_slug_that_kaggle_does_not_know(place: Path) -> None:
    with serve(place) as kaggle:
        for module in ("download", "check"):
            result = here(module, "--competition", "mistyped", cwd=place, environ=kaggle.environment)
            assert "--competition mistyped spelled right?" in error_line(result, 2)
    assert not (place / "data/raw/mistyped").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"username": "u"}', '{"username": "u", "key": 7}', "user,key"])
def test_a_kaggle_json_of_the_wrong_shape(place: Path, content: str) -> None:
    home = place / "home/.kaggle"
    home.mkdir(parents=True)
    (home / "kaggle.json").write_text(content)
    environ = {**clean_environment(), "HOME": str(place / "home")}
    before = tree(place)
    line = error_line(here("submit", cwd=place, environ=environ), 5)
    assert "kaggle.json cannot be read or is not of the shape" in line
    assert "https://www.kaggle.com/settings" in line
    assert tree(place) == before


def test_another_runs_folder_is_no_reason_to_lose_a_run(place: Path) -> None:
    write_run(place, "second", seed=1)
    before = tree(place)
    remove(f"{RUN}/{runs.WEIGHTS}")(place)
    assert "weights.safetensors is missing" in error_line(here("predict", "--run", "tiny-run", cwd=place), 4)
    assert tree(place) == {name: content for name, content in before.items() if name != f"{RUN}/{runs.WEIGHTS}"}
