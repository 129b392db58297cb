"""What a machine does to people: devices that fail, terminals and folders that are not as usual."""

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch

from pipeline.errors import AccessDenied
from pipeline.kaggle_api import credentials
from pipeline.training import inference
from tests.hostile.edits import CSV
from tests.hostile.surroundings import NAMESPACE, needs_mounts, shell
from tests.support import ROOT, SLUG, clean_environment, error_line, here, tree
from tests.training.tiny import before_step, write_tiny

TRAIN = ("train", "--competition", SLUG, "--preset", "rehearsal", "--epochs", "2", "--device", "cpu")


# --- a device that fails ----------------------------------------------------------------------------------------


def test_a_device_that_vanishes_while_training_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path / "data/processed")
    error: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)
    message = "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later"
    with monkeypatch.context() as patch:
        before_step(patch, 1, 1, mock.Mock(side_effect=error(message)))
        line = error_line(here(*TRAIN, cwd=tmp_path), 1)
    assert "failed (CUDA error: unspecified launch failure): run the same command again" in line
    assert "resumes at its last checkpoint" in line and "--device cpu" in line
    result = here(*TRAIN, cwd=tmp_path)
    assert "resuming after 1 epochs and 0 steps" in result.stderr


def test_a_device_that_vanishes_while_predicting_is_told_and_nothing_is_lost(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, error = tree(place), RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    with monkeypatch.context() as patch:
        patch.setattr(inference, "predict_holdout", mock.Mock(side_effect=error))
        line = error_line(here("predict", "--force", cwd=place), 1)
    assert "failed (cuDNN error: CUDNN_STATUS_EXECUTION_FAILED): run the same command again" in line
    assert tree(place) == before
    assert here("predict", "--force", cwd=place).returncode == 0
    assert (place / CSV).read_bytes() == before[CSV]


# --- an acceleration that fails ---------------------------------------------------------------------------------


def test_a_compiler_that_compiles_nothing_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As g++ does without Python's headers."""
    write_tiny(tmp_path / "data/processed", train=100, test=20)
    version = "case $1 in --version) echo g++ 14; exit;; esac"
    script = f"#!/bin/sh\n{version}\necho 'x.cpp:1:10: fatal error: Python.h: No such file' >&2\nexit 1\n"
    (tmp_path / "g++").write_text(script)
    (tmp_path / "g++").chmod(0o755)
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda _model, **how: compile_(torch.sin, **how))  # seconds faster
    environ = {**clean_environment(), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
               "PATH": f"{tmp_path}:{os.environ['PATH']}"}  # fmt: skip
    result = here(*TRAIN, "--compile", "yes", cwd=tmp_path, environ=environ)
    assert result.returncode == 0
    told = [line for line in result.stderr.splitlines() if "fail" in line]
    assert told == ["compiling the model fails here (fatal error: Python.h: No such file): training the plain model"]
    (execution,) = (tmp_path / "data/models").glob("*/execution.json")
    assert json.loads(execution.read_text())["compiled"] is False


def test_a_compilers_cache_that_cannot_be_made_costs_one_line(tmp_path: Path) -> None:
    """Even without compiling: PyTorch makes it for an optimizer."""
    write_tiny(tmp_path / "data/processed", train=100, test=20)
    (tmp_path / "file").touch()
    environ = {**clean_environment(), "TORCHINDUCTOR_CACHE_DIR": "file/cache"}
    result = here(*TRAIN, cwd=tmp_path, environ=environ)
    assert result.returncode == 0
    told = [line for line in result.stderr.splitlines() if "fail" in line]
    assert told == ["TORCHINDUCTOR_CACHE_DIR=file/cache fails here (Not a directory): using PyTorch's default"]


# --- terminals and folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("exec 9> >(:); sleep 0.3; exec $P.check --help >&9", 1, ""),
        ("exec 9> >(:); sleep 0.3; exec $P.predict --run none >&9", 3, "error: there is no run none"),
        (f"$P.preprocess --competition {SLUG} --force <&- >&- 2>&-", 0, ""),
        ("$P.predict --run none 2>/dev/full", 3, ""),
        (f"$P.check --competition {SLUG} >/dev/full", 1, "the disk is full"),
    ],
    ids=["a reader that went away", "and an error", "all closed", "no space for the error", "no space for the output"],
)
def test_output_that_goes_nowhere_harms_nobody(place: Path, script: str, code: int, says: str) -> None:
    before = tree(place)
    result = shell(script, place)
    assert result.returncode == code
    assert says in result.stderr and "Traceback" not in result.stderr and bool(says) == ("error: " in result.stderr)
    assert tree(place) == before


def test_a_path_with_spaces_and_umlauts_works_in_a_terminal_without_them(place: Path) -> None:
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict",
               "COLUMNS": "20"}  # fmt: skip
    shutil.copytree(place / "submissions", place / "Übung 1/süß")
    command = f"$P.check --competition {SLUG} --csv 'Übung 1/süß/tiny-run.csv' --submissions 'Übung 1/süß'"
    result = shell(f"{command} && $P.predict --run süß", place, **environ)
    assert "/tiny-run.csv, run tiny-run" in result.stderr and "holdout 90.00%" in result.stdout, result.stderr
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: --run ")


def test_what_a_shell_exports_and_what_lies_about_changes_nothing(place: Path, tmp_path: Path) -> None:
    command = f"check --competition {SLUG} --pictures".split()
    assert here(*command, "pictures", cwd=place).returncode == 0
    (place / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    (tmp_path / "foreign").mkdir()
    for folder, name in ((tmp_path / "foreign", "numpy"), (place, "click"), (place, "random")):
        (folder / f"{name}.py").write_text("raise SystemExit('a stranger')")
    exported = dict.fromkeys(("TQDM_MININTERVAL", "TORCH_LOGS", "PYTORCH_JIT", "OMP_NUM_THREADS", "COLUMNS"), "x")
    exported |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": "matplotlibrc",
                 "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1", "PYTHONDEVMODE": "1",
                 "TMPDIR": "matplotlibrc/none", "LC_ALL": "tr_TR.UTF-8", "FORCE_COLOR": "1",
                 "PYTHONPATH": f"{tmp_path / 'foreign'}:{ROOT}"}  # fmt: skip
    # Set again at each start of Python, as some sites do.
    (tmp_path / "foreign" / "sitecustomize.py").write_text("import os; os.environ['PYTHONWARNINGS'] = 'error'")
    assert shell("$P.status --help", place, **exported).stdout.count("Show what exists") == 1
    result = shell(f"$P.{command[0]} {' '.join(command[1:])} exported", place, **exported)
    assert result.returncode == 0, result.stderr
    assert tree(place / "exported") == tree(place / "pictures")


def test_a_user_whom_the_system_does_not_know_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(AccessDenied, match="no Kaggle credentials"):
        credentials.require({})


def test_no_home_and_no_input_are_needed(place: Path) -> None:
    result = shell("unset HOME; $P.predict <&-", place)
    assert result.returncode == 0 and "nothing to do" in result.stdout, result.stderr


def test_a_current_folder_that_was_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    result = shell("cd gone; rmdir ../gone; $P.predict", tmp_path)
    assert "the current folder was removed: change to the project's folder" in error_line(result, 2)


@needs_mounts
def test_a_folder_that_cannot_be_written_is_named(place: Path) -> None:
    before = tree(place)
    script = 'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && $P.predict --force'
    line = error_line(shell(f"{' '.join(NAMESPACE)} bash -c '{script}'", place), 1)
    assert "submissions/.tiny-run.csv.lock: Read-only file system: change its permissions, or name another" in line
    assert tree(place) == before


def test_a_competition_in_the_environment_that_is_none(tmp_path: Path) -> None:
    environ = {**clean_environment(), "PIPELINE_COMPETITION": "https://www.kaggle.com/competitions/tiny/overview"}
    assert "competition" in error_line(here("train", cwd=tmp_path, environ=environ), 2)
