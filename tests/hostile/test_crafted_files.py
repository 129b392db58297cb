"""Every crafted file against the real command line: one line of refusal, nothing run, nothing changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.archives import competition
from tests.hostile.crafted import HIDDEN_SET, Case, Target, every_case
from tests.hostile.pickles import CALLS, alone
from tests.support import error_line

CASES = list(every_case(share=16))
FRESH = [  # in an interpreter of their own, whose memory is measured
    "hidden: call: os.system",
    "hidden: bomb: small dicts again and again",
    "hidden: bomb: nested marks",
    "meta: a name of 50 MB",
    "archive: bomb: a gzip with a long name",
]
REAL = ["os.system", "posix.system", "os.execvp", "subprocess", "builtins.exec", "import alone"]
REAL += ["getattr", "functools", "nested loads", "numpy.memmap", "INST", "OBJ", "STACK_GLOBAL"]
REAL += ["STACK_GLOBAL by memo"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("target"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_crafted_file_does_no_harm(case: Case, target: Target) -> None:
    target.check(case)


def test_a_crafted_file_does_no_harm_to_a_fresh_interpreter(tmp_path: Path) -> None:
    fresh, cases = Target(tmp_path, fresh=True), {case.name: case for case in every_case()}
    assert len(cases) == len(list(every_case()))
    for name in FRESH:
        fresh.check(cases[name])


def test_the_check_finds_what_was_not_refused(target: Target) -> None:
    honest = competition()[HIDDEN_SET]
    with pytest.raises(AssertionError, match="some case"):
        target.check(Case("some case", "preprocess", HIDDEN_SET, lambda: honest))


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


@pytest.mark.parametrize("kind", ["folder", "FIFO", "/dev/zero", "nowhere", HIDDEN_SET])
def test_a_hidden_set_that_is_no_file_is_refused(kind: str, target: Target) -> None:
    path = target.raw / HIDDEN_SET
    honest = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    try:
        result, _ = target.run("preprocess")
    finally:
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(honest)
    assert error_line(result, result.returncode) and result.returncode in (3, 4)
