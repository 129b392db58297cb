import subprocess
import sys

import pytest

from pipeline import cli
from tests.support import ROOT, clean_environment


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("--run A B C --out x", "--run A --run B --run C --out x"),
        ("--out x --run A B", "--out x --run A --run B"),
        ("--run=A B --force", "--run=A --run B --force"),
        ("--run A --run B C", "--run A --run B --run C"),
        ("--run A --force B", "--run A --force B"),
        ("--runs A B --out x y", "--runs A B --out x y"),
        ("--run --out x", "--run --out x"),
        ("--run", "--run"),
        ("", ""),
    ],
)
def test_an_option_is_spread_over_its_values(given: str, spread: str) -> None:
    assert cli.spread(given.split(), "--run") == spread.split()


@pytest.mark.parametrize("module", ["train", "status", "rehearsal"])
def test_without_the_environment_a_command_says_how_to_get_it(module: str) -> None:
    bare = [sys.executable, "-I", "-S", "-c"]  # the standard library alone
    start = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.orig_argv = ['-m', 'pipeline.{module}']; "
    result = subprocess.run(
        [*bare, f"{start}runpy.run_module('pipeline.{module}', run_name='__main__')"],
        env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "source .venv/bin/activate" in result.stderr
