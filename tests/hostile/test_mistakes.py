"""What people do wrong, through the real command line: what they read, the exit code, and that nothing is lost."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.store import runs
from tests.hostile.edits import (
    CSV,
    EVIDENCE,
    PROCESSED,
    RUN,
    SIDECAR,
    Edit,
    edit,
    move,
    nothing,
    of_run,
    remove,
    several,
    values,
    write,
)
from tests.support import SLUG, clean_environment, error_line, here, stage, tree, write_run

# Where a stage goes on to Kaggle although it should not, nobody answers.
NOWHERE = {"KAGGLE_API_TOKEN": "a-token", **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")}


@dataclass(frozen=True)
class Mistake:
    """One row: what somebody did, what is run then, and how it must end."""

    name: str
    does: Edit
    command: str
    code: int
    says: str  # in the one line of the error


def _csv(name: str, change: Callable[[bytes], bytes], says: str) -> Mistake:
    """A CSV without its sidecar, edited and submitted."""
    return Mistake(f"CSV {name}", several(edit(CSV, change), remove(SIDECAR)), SUBMIT, 4, says)


def _version(name: str, what: str, *keys: str, says: str = runs.ANEW, **changes: Any) -> Mistake:
    """A run that another version of the pipeline might have written."""
    does = values(f"{RUN}/{name}", *keys, **changes)
    return Mistake(f"{name}: {what}", does if name == "manifest.json" else of_run(does), "predict --force", 4, says)


def _sidecar(name: str, value: Any, code: int = 4, says: str = "python -m pipeline.predict ") -> Mistake:
    return Mistake(f"sidecar: {name} {value!r}", values(SIDECAR, **{name: value}), "submit", code, says)


SUBMIT = f"submit --csv {CSV} --competition {SLUG}"
CHECK = f"check --competition {SLUG} --csv {CSV}"
EDITED = edit(CSV, lambda c: c + b"\n")
RENAMED = move(RUN, "data/models/other-name")
ABSENT = "cuda" if sys.platform == "darwin" else "mps"
FOLDER = "a file is where a folder is needed; move it away, or name another place"
TRAIN = f"train --preset rehearsal --competition {SLUG}"

MISTAKES = [
    # a CSV that went through a spreadsheet
    _csv("with BOM", lambda c: b"\xef\xbb\xbf" + c, "python -m pipeline.predict --force"),
    _csv("in UTF-16", lambda c: c.decode().encode("utf-16"), "is UTF-16"),
    _csv("with CRLF", lambda c: c.replace(b"\n", b"\r\n"), "Windows line ends"),
    _csv("with semicolons", lambda c: c.replace(b",", b";"), "semicolons instead of commas"),
    _csv("with floats", lambda c: c.replace(b",", b".0,").replace(b"ID.0", b"ID"), "line 2: '100.0,"),
    _csv("with lost rows", lambda c: b"".join(c.splitlines(True)[:-3]), "3 of 30 ids are missing, the first is 127"),
    _csv("with doubled ids", lambda c: c + c.splitlines(True)[-1], "id 129 occurs 2 times"),
    _csv("without header", lambda c: c.partition(b"\n")[2], "the first line is '100,"),
    Mistake("CSV edited, submitted", EDITED, "submit", 4, "predict again with --force"),
    Mistake("CSV edited, predicted", EDITED, "predict", 2, "--force"),
    # another competition
    Mistake("a URL", nothing, f"download --competition https://www.kaggle.com/c/{SLUG}/data", 2,
            f"--competition {SLUG}"),
    Mistake("no slug", nothing, "preprocess --competition 'Deep Learning'", 2,
            "the last part of the competition's URL"),
    Mistake("another's CSV", nothing, "submit --competition other", 2, "was predicted for tiny"),
    Mistake("another's sidecar", nothing, f"check --competition other --csv {CSV}", 4, "add --competition tiny"),
    # a run that is elsewhere or not finished
    Mistake("run renamed", RENAMED, "predict", 3, "was it renamed"),
    Mistake("pointer lost", remove("data/models/LATEST"), "predict", 3, "name one with --run"),
    Mistake("run misspelt", nothing, "predict --run Tinyrun", 3, "did you mean tiny-run?"),
    Mistake("no such run", nothing, "predict --run paper", 3, "there is tiny-run (`python -m pipeline.train` makes"),
    Mistake("run unfinished", remove(f"{RUN}/manifest.json"), "predict", 3, "with the same options to go on"),
    Mistake("run of other images", of_run(values(f"{RUN}/config.json", data="f" * 64)), "predict", 4, "train again"),
    Mistake("run of another competition", of_run(values(f"{RUN}/config.json", competition="other")), "predict", 3,
            "python -m pipeline.preprocess --competition other"),
    Mistake("run edited", values(f"{RUN}/result.json", epochs=7), "predict", 4, "result.json is missing or damaged"),
    # a run of another version
    _version("config.json", "an unknown key", "config", newer=1, says="config.json is damaged or of another version"),
    _version("config.json", "a missing key", "config", model=None),
    _version("config.json", "half a batch", "config", batch_size=64.5, says="batch_size cannot be 64.5"),
    _version("config.json", "a path for a competition", competition="../../etc", says="no competition slug"),
    _version("result.json", "text for an accuracy", test_accuracy="high", says="test_accuracy cannot be 'high'"),
    _version("manifest.json", "no weights", "files", **{runs.WEIGHTS: None}, says="does not know weights"),
    # what is beside a CSV
    Mistake("sidecar lost, submit", remove(SIDECAR), "submit", 2, "--competition SLUG"),
    Mistake("sidecar lost, predict", remove(SIDECAR), "predict", 2, "--force"),
    Mistake("sidecar cut", edit(SIDECAR, lambda c: c[:50]), "submit", 4, f"{SIDECAR} is damaged"),
    _sidecar("competition", "../x"),
    _sidecar("competition", "other", 3, "python -m pipeline.preprocess --competition other"),
    _sidecar("test_accuracy", "high"),
    _sidecar("run", "$(touch canary)"),
    Mistake("evidence lost", remove(EVIDENCE), CHECK, 4, "predict again with --force"),
    Mistake("evidence cut", edit(EVIDENCE, lambda c: c[:500]), CHECK, 4, "predict again with --force"),
    Mistake("array cut", edit(f"{PROCESSED}/hidden_images.npy", lambda c: c[:-10]), "predict", 4,
            f"python -m pipeline.preprocess --competition {SLUG} --force"),
    # options
    Mistake("out a folder", lambda place: (place / "x.csv").mkdir(), "predict --out x.csv", 2, "is a directory"),
    Mistake("out below a file", write("x", ""), "predict --out x/y.csv", 1, f"x: File exists: {FOLDER}"),
    Mistake("CSV not there", nothing, "submit --csv none.csv", 3, "python -m pipeline.predict --out none.csv"),
    Mistake("no option", nothing, f"submit {CSV}", 2, "--help shows the options"),
    Mistake("a wrong option", nothing, "predict --runs tiny-run", 2, "Did you mean '--run'"),
    Mistake("not a number", nothing, "check --fail-over nan", 2, "'nan' is not a number"),
    Mistake("no such device", nothing, f"{TRAIN} --device {ABSENT}", 2, "available: "),
    Mistake("other options", nothing, f"{TRAIN} --run tiny-run --seed 9", 2, "choose another name with --run"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_told_with_its_cure_and_nothing_is_lost(place: Path, mistake: Mistake) -> None:
    must_be_told(here, place, mistake)


def test_it_is_told_in_an_interpreter_of_its_own_as_well(place: Path) -> None:
    must_be_told(stage, place, next(mistake for mistake in MISTAKES if mistake.name == "run renamed"))


def must_be_told(run: Callable[..., "subprocess.CompletedProcess[str]"], place: Path, mistake: Mistake) -> None:
    """Run the command after the mistake: it must end as the row says, and change nothing."""
    mistake.does(place)
    before = tree(place)
    module, *arguments = shlex.split(mistake.command)
    result = run(module, *arguments, cwd=place, environ={**clean_environment(), **NOWHERE})
    line = error_line(result, mistake.code)
    assert mistake.says in line
    assert result.stderr.splitlines()[-1] == line
    assert tree(place) == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("preprocess", "python -m pipeline.download"),
        ("train", "python -m pipeline.preprocess"),
        ("sweep --search seed=1,2", "python -m pipeline.preprocess"),
        ("predict", "python -m pipeline.train"),
        ("predict --run pretrained", "python -m pipeline.train"),
        ("submit", "python -m pipeline.train"),
        ("submit --csv sub.csv", "python -m pipeline.predict --out sub.csv"),
    ],
)
def test_a_stage_that_comes_too_early_names_the_one_to_run_first(tmp_path: Path, command: str, says: str) -> None:
    module, *arguments = command.split()
    result = here(module, *arguments, cwd=tmp_path, environ={**clean_environment(), **NOWHERE})
    assert says in error_line(result, 3)
    assert tree(tmp_path) == {}


# --- what goes well all the same ------------------------------------------------------------------------------


def test_a_renamed_run_predicts_under_its_new_name(place: Path) -> None:
    old = (place / CSV).read_bytes()
    RENAMED(place)
    assert here("predict", "--run", "other-name", cwd=place).returncode == 0
    assert (place / "submissions/other-name.csv").read_bytes() == old == (place / CSV).read_bytes()


def test_a_csv_outlives_its_run(place: Path) -> None:
    remove(RUN)(place)
    result = here("check", "--competition", SLUG, cwd=place)
    assert result.returncode == 0
    assert f"kaggle competitions submit -c {SLUG} -f {CSV}" in result.stdout


def test_the_names_that_may_be_meant_are_few(place: Path) -> None:
    for k in range(12):
        shutil.copytree(place / RUN, place / f"data/models/study-{k:02}")
    line = error_line(here("predict", "--run", "stud", cwd=place), 3)
    assert "did you mean study-00, study-01, " in line and line.endswith(", study-07 and 4 more?")
    assert "there is no run x" in error_line(here("predict", "--run", "x", cwd=place), 3)


def test_another_runs_folder_is_no_reason_to_lose_a_run(place: Path) -> None:
    write_run(place, "second", seed=1)
    before = tree(place)
    remove(f"{RUN}/{runs.WEIGHTS}")(place)
    assert "weights.safetensors is missing" in error_line(here("predict", "--run", "tiny-run", cwd=place), 4)
    assert tree(place) == {name: content for name, content in before.items() if name != f"{RUN}/{runs.WEIGHTS}"}
