"""tests/run.sh and .ci/run with stand-ins for the set-up, apt-get and Python: what is done, and what if it fails."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

CALL = 'echo "$(basename "$0") $*"\n'  # a stand-in says how it was called
PYTHON = CALL + "case $2 in mypy) exit ${MYPY:-0};; pytest) exit ${PYTEST:-0};; esac\n"
STEPS = ["run_all.sh --setup", "python -m ruff check .", "python -m ruff format --check ."]


def run(folder: Path, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The script in a project of stand-ins, where no Chromium is in PATH."""
    programs = folder / "programs"
    for path, text in {
        folder / "run_all.sh": CALL,
        programs / "python": PYTHON,
        programs / "apt-get": CALL + 'case "$*" in *update) exit ${UPDATE:-0};; esac\n',
    }.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    for name in ("bash", "dirname", "basename", "mktemp", "rm", "cat", "tail"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name in ("tests/run.sh", ".ci/run"):
        (folder / name).parent.mkdir()
        shutil.copy(ROOT / name, folder / name)
    known = {"PATH": str(programs), "PIPELINE_PYTHON": str(programs / "python")}
    return subprocess.run(
        [folder / script, *arguments], env={**known, **environ}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("codes", "code"),
    [({}, 0), ({"MYPY": "2"}, 1), ({"PYTEST": "5"}, 5), ({"MYPY": "1", "PYTEST": "1"}, 1)],
)
def test_everything_is_done_in_its_turn_and_what_fails_is_in_the_exit_code(
    tmp_path: Path, codes: dict[str, str], code: int
) -> None:
    result = run(tmp_path, "tests/run.sh", "-k", "word", **codes)
    assert (result.returncode, result.stderr) == (code, "")
    assert result.stdout.splitlines() == [*STEPS, "python -m pytest -n 2 -k word", "python -m mypy"]
