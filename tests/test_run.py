"""tests/run.sh with stand-ins for the set-up, apt-get and Python: what is done when something is missing or fails."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CALL = 'echo "$(basename "$0") $*"\n'  # a stand-in says how it was called
PYTHON = CALL + "case $2 in mypy) exit ${MYPY:-0};; pytest) exit ${PYTEST:-0};; esac\n"


def run(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """tests/run.sh in a project of stand-ins, where no Chromium is in PATH unless `folder` has it."""
    programs = folder / "programs"
    for path, text in {
        folder / "run_all.sh": CALL,
        programs / "python": PYTHON,
        programs / "apt-get": CALL + 'case "$*" in *update) exit ${UPDATE:-0};; esac\n',
    }.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    for name in ("bash", "dirname", "basename", "mktemp", "rm", "cat"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (folder / "tests").mkdir()
    shutil.copy(HERE / "run.sh", folder / "tests")
    known: Mapping[str, str] = {"PATH": str(programs), "PIPELINE_PYTHON": str(programs / "python")}
    return subprocess.run(
        [folder / "tests/run.sh", "-k", "word"],
        env={**known, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_everything_is_done_in_its_turn(tmp_path: Path) -> None:
    result = run(tmp_path, CHROMIUM="bash")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "run_all.sh --setup",
        "python -m ruff check .",
        "python -m ruff format --check .",
        "python -m pytest -n 2 -k word",
        "python -m mypy",
    ]


@pytest.mark.parametrize(
    ("codes", "code"), [({"MYPY": "2"}, 1), ({"PYTEST": "5"}, 5), ({"MYPY": "1", "PYTEST": "1"}, 1)]
)
def test_what_fails_is_in_the_exit_code_and_the_others_are_done(
    tmp_path: Path, codes: dict[str, str], code: int
) -> None:
    result = run(tmp_path, CHROMIUM="bash", **codes)
    assert result.returncode == code
    assert result.stdout.splitlines()[-2:] == ["python -m pytest -n 2 -k word", "python -m mypy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install")
def test_a_chromium_is_installed_quietly_and_its_failure_is_shown(tmp_path: Path) -> None:
    (tmp_path / "well").mkdir()
    assert "apt-get" not in run(tmp_path / "well").stdout
    (tmp_path / "ill").mkdir()
    result = run(tmp_path / "ill", UPDATE="100")
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    assert lines[0].startswith("apt-get ") and lines[0].endswith(" update"), lines
    assert lines[1:] == ["no Chromium: the browser tests are skipped"]
    assert "python -m pytest -n 2 -k word" in result.stdout
