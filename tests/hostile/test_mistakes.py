"""What people do wrong, through the real command line: what they read, the exit code, and that nothing is lost."""

import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.store import atomic, runs
from tests.hostile.edits import CSV, EVIDENCE, RUN, SIDECAR, Edit, edit, flip, move, nothing, of_run, remove, values
from tests.support import SLUG, clean_environment, error_line, here, tree, write_run

# Where a stage goes on to Kaggle although it should not, nobody answers.
NOWHERE = {"KAGGLE_API_TOKEN": "a-token", **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")}


class Mistake(NamedTuple):
    """One row: what somebody did, what is run then, and how it must end."""

    name: str
    does: Edit
    command: str
    code: int
    says: str  # in the one line of the error


def weights_lost_beside_another(place: Path) -> None:
    """Another run's folder is no reason to take it for this one."""
    write_run(place, "second", seed=1)
    remove(f"{RUN}/{runs.WEIGHTS}")(place)


def somebodys(*names: str) -> Edit:
    """Files of the user's own where a stage would write."""

    def write(place: Path) -> None:
        for name in names:
            atomic.write_json(place / name, {"model_type": "bert"})

    return write


CONFIG = f"{RUN}/config.json"
CHECK = f"check --competition {SLUG} --csv {CSV}"
RENAMED = move(RUN, "data/models/other-name")
FOLDER = "a file is in place of a folder; move it away, or name another place"
TRAIN = f"train --preset rehearsal --competition {SLUG}"
AGAIN = "predict again with --force"
ELSEWHERE = "it stays as it is: run predict again with --out submissions/tiny-run-2.csv"

MISTAKES = [
    Mistake("CSV edited", edit(CSV, lambda c: c + b"\n"), "predict", 2, ELSEWHERE),
    # another competition
    Mistake("no slug", nothing, "preprocess --competition 'Deep Learning'", 2,
            "is not a competition slug"),
    # a run that is elsewhere, not finished, edited or of another version
    Mistake("run renamed", RENAMED, "predict", 3, "was it renamed"),
    Mistake("run renamed, report", RENAMED, "report", 3, "was it renamed"),
    Mistake("pointer lost", remove("data/models/LATEST"), "predict", 3, "name one with --run"),
    Mistake("run misspelt", nothing, "predict --run Tinyrun", 3, "did you mean tiny-run?"),
    Mistake("no such run", nothing, "predict --run paper", 3, "there is tiny-run"),
    Mistake("run unfinished", remove(f"{RUN}/manifest.json"), "predict", 3, "with the same options to resume"),
    Mistake("run of other images", of_run(values(CONFIG, data="f" * 64)), "predict", 4, "train again"),
    Mistake("run of another competition", of_run(values(CONFIG, competition="other")), "predict", 3,
            "python -m pipeline.preprocess --competition other"),
    Mistake("run edited", values(f"{RUN}/result.json", epochs=7), "predict", 4, "result.json is missing or damaged"),
    Mistake("run with an unknown key", of_run(values(CONFIG, "config", newer=1)), "predict --force", 4,
            "config.json is damaged or of another version"),
    Mistake("run of a path", of_run(values(CONFIG, competition="../../etc")), "predict", 4, "not a competition slug"),
    Mistake("run without weights", values(f"{RUN}/manifest.json", "files", **{runs.WEIGHTS: None}), "predict --force",
            4, "does not list weights"),
    Mistake("run with other weights", flip(f"{RUN}/{runs.WEIGHTS}"), "predict --force", 4, "is damaged"),
    Mistake("run without its file", weights_lost_beside_another, "predict --run tiny-run", 4,
            "weights.safetensors is missing"),
    # what is beside a CSV
    Mistake("sidecar lost, submit", remove(SIDECAR), "submit", 4, f"submit it as is with --csv {CSV}, or run"),
    Mistake("sidecar lost, predict", remove(SIDECAR), "predict", 2, ELSEWHERE),
    Mistake("sidecar of a path", values(SIDECAR, competition="../x"), "submit", 4, "python -m pipeline.predict "),
    Mistake("sidecar of another", values(SIDECAR, competition="other"), "submit", 3, "preprocess --competition other"),
    Mistake("sidecar with a command", values(SIDECAR, run="$(touch x)"), "submit", 4, "python -m pipeline.predict "),
    Mistake("evidence lost", remove(EVIDENCE), CHECK, 4, AGAIN),
    Mistake("array cut", edit(f"data/processed/{SLUG}/hidden_images.npy", lambda c: c[:-10]), "predict", 4,
            f"python -m pipeline.preprocess --competition {SLUG} --force"),
    # a user's own files where a stage would write
    Mistake("own folder of a run's name", somebodys("data/models/bert/notes.json"), f"{TRAIN} --run bert", 2,
            "bert holds notes.json, not a run's file: choose another name with --run"),
    Mistake("own file of a run's name", somebodys("data/models/bert"), f"{TRAIN} --run bert", 2,
            "bert holds bert, not a run's file: choose another name with --run"),
    Mistake("own model of a run's name", somebodys("data/models/bert/config.json", "data/models/bert/vocab.json"),
            f"{TRAIN} --run bert", 4, "unknown): name another --run"),
    # options
    Mistake("a path for a run", nothing, "predict --run ../../etc", 2, "not a path"),
    Mistake("out no CSV", nothing, "predict --out sub.txt", 2, ".csv"),
    Mistake("out the ledger", nothing, "predict --out submissions/ledger.csv", 2, "the ledger's name"),
    Mistake("out a folder", lambda place: (place / "x.csv").mkdir(), "predict --out x.csv", 2, "is a directory"),
    Mistake("out a lost link", lambda place: (place / "x.csv").symlink_to("gone.csv"), "predict --out x.csv", 2,
            "--out x-2.csv"),
    Mistake("out below a file", lambda place: (place / "x").touch(), "predict --out x/y.csv", 1,
            f"x: File exists: {FOLDER}"),
    Mistake("CSV not there", nothing, "submit --csv none.csv", 3, "python -m pipeline.predict --out none.csv"),
    Mistake("no option", nothing, f"submit {CSV}", 2, "--help shows the options"),
    Mistake("not a number", nothing, "check --fail-over nan", 2, "'nan' is not a number"),
]  # fmt: skip


def run_after(mistake: Mistake, place: Path) -> None:
    """The command must end as the row says, and change nothing."""
    mistake.does(place)
    before = tree(place)
    module, *arguments = shlex.split(mistake.command)
    environ = clean_environment() | (NOWHERE if module != "check" else {})
    result = here(module, *arguments, cwd=place, environ=environ)
    line = error_line(result, mistake.code)
    assert mistake.says in line
    assert result.stderr.splitlines()[-1] == line
    assert tree(place) == before


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_told_with_its_cure_and_nothing_is_lost(place: Path, mistake: Mistake) -> None:
    run_after(mistake, place)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("preprocess", "python -m pipeline.download"),
        ("train", "python -m pipeline.preprocess"),
        ("sweep --search seed=1,2", "python -m pipeline.preprocess"),
        ("predict --run pretrained", "python -m pipeline.train"),
        ("submit", "python -m pipeline.train"),
        ("report", "python -m pipeline.train"),
        ("submit --csv sub.csv", "python -m pipeline.predict --out sub.csv"),
    ],
)
def test_a_stage_that_comes_too_early_names_the_one_to_run_first(tmp_path: Path, command: str, says: str) -> None:
    run_after(Mistake("too early", nothing, command, 3, says), tmp_path)


# --- what goes well all the same --------------------------------------------------------------------------------


def test_a_renamed_run_predicts_under_its_new_name(place: Path) -> None:
    old = (place / CSV).read_bytes()
    RENAMED(place)
    assert here("predict", "--run", "other-name", cwd=place).returncode == 0
    assert (place / "submissions/other-name.csv").read_bytes() == old == (place / CSV).read_bytes()


def test_a_csv_outlives_its_run(place: Path) -> None:
    remove(RUN)(place)
    result = here("check", "--competition", SLUG, cwd=place)
    assert result.returncode == 0
    assert f"next: python -m pipeline.submit --csv {CSV}" in result.stdout


def test_the_names_that_may_be_meant_are_few(place: Path) -> None:
    for k in range(12):
        shutil.copytree(place / RUN, place / f"data/models/study-{k:02}")
    line = error_line(here("predict", "--run", "stud", cwd=place), 3)
    assert "did you mean study-00, study-01, " in line and line.endswith(", study-07 and 4 more?")
