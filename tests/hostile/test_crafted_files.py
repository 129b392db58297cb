"""Every crafted file against the real command line: one line of refusal, nothing run, nothing changed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.calls import CALLS
from tests.hostile.checking import HIDDEN, SLUG, Case, Target, every_case, target
from tests.hostile.packing import competition
from tests.hostile.pickles import alone

CASES = list(every_case(share=12))
FRESH = [
    "hidden: call: os.system",
    "hidden: bomb: small dicts again and again",
    "hidden: bomb: nested marks",
    "batch: impostor: empty",
    "meta: a name that is no UTF-8",
    "archive: tar with a link, and a file through it",
    "archive: modules inside",
]
REAL = ["os.system", "posix.system", "os.execvp", "subprocess", "builtins.exec", "builtins.__import__", "io.open"]
REAL += ["importlib", "timeit", "import alone", "getattr", "operator", "operator.methodcaller", "functools"]
REAL += ["functools.reduce", "list of map", "nested loads", "numpy.memmap", "INST", "OBJ", "STACK_GLOBAL"]
REAL += ["STACK_GLOBAL by memo"]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("forked")) as found:
        yield found


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("fresh"), fresh=True) as found:
        yield found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_crafted_file_does_no_harm(case: Case, forked: Target) -> None:
    forked.check(case)


@pytest.mark.parametrize("case", [case for case in every_case() if case.name in FRESH], ids=lambda case: case.name)
def test_a_crafted_file_does_no_harm_to_a_fresh_interpreter(case: Case, fresh: Target) -> None:
    fresh.check(case)


def test_each_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in every_case()]
    assert len(set(names)) == len(names) > 800
    assert set(FRESH) <= set(names)


def test_the_check_finds_what_was_not_refused(forked: Target) -> None:
    honest = competition()[HIDDEN]
    with pytest.raises(AssertionError, match="some case"):
        forked.check(Case("some case", "preprocess", HIDDEN, lambda: honest))


# What a trusting program does, once for each file; every file lies in a folder of its own.
LOADING = """
import contextlib, os, pathlib, pickle, sys
sys.path.insert(0, "")
for folder in sorted(pathlib.Path.cwd().iterdir()):
    if os.fork() == 0:
        os.chdir(folder)
        with contextlib.suppress(Exception), open("attack.pkl", "rb") as stream:
            pickle.load(stream)
        os._exit(0)
    os.wait()
"""


def test_the_attacks_are_real(tmp_path: Path) -> None:
    # Where pickle itself loads them they succeed: the cases above would notice.
    for attack in REAL:
        (tmp_path / attack).mkdir()
        (tmp_path / attack / "canary_module.py").write_text("open('canary', 'w').close()\nx = 1\n")
        (tmp_path / attack / "attack.pkl").write_bytes(alone(CALLS[attack]))
    done = subprocess.run([sys.executable, "-c", LOADING], cwd=tmp_path, capture_output=True, check=True)
    assert [attack for attack in REAL if not (tmp_path / attack / "canary").exists()] == [], done


@pytest.mark.parametrize("kind", ["folder", "FIFO", "loop", "device", "dangling"])
def test_a_hidden_set_that_is_no_file_is_refused(kind: str, forked: Target) -> None:
    path = forked.folder / "data/raw" / SLUG / HIDDEN
    honest = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path.name, "device": "/dev/zero", "dangling": "nowhere"}[kind])
    try:
        outcome = forked.runner.run("preprocess", "--competition", SLUG, cwd=forked.folder, limit=5)
    finally:
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(honest)
    assert outcome.code in (3, 4), outcome
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1
