"""tests/run.sh with stand-ins for the set-up and Python: what is done, and what if it fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

CALL = 'echo "$(basename "$0") $*"\n'  # a stand-in says how it was called
PYTHON = CALL + "case $2 in mypy) exit ${MYPY:-0};; pytest) exit ${PYTEST:-0};; esac\n"
STEPS = ["run_all.sh --setup", "python -m ruff check .", "python -m ruff format --check ."]


@pytest.mark.parametrize(
    ("codes", "code"),
    [({}, 0), ({"MYPY": "2"}, 1), ({"PYTEST": "5"}, 5), ({"MYPY": "1", "PYTEST": "1"}, 1)],
)
def test_everything_is_done_in_its_turn_and_what_fails_is_in_the_exit_code(
    tmp_path: Path, codes: dict[str, str], code: int
) -> None:
    for name, text in (("run_all.sh", CALL), ("python", PYTHON)):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tests").mkdir()
    script = shutil.copy(ROOT / "tests/run.sh", tmp_path / "tests/run.sh")
    environ = {**os.environ, "PIPELINE_PYTHON": str(tmp_path / "python"), **codes}
    result = subprocess.run([script, "-k", "word"], env=environ, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (code, "")
    assert result.stdout.splitlines() == [*STEPS, "python -m pytest -n 3 -k word", "python -m mypy"]
