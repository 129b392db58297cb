"""What runs on Kaggle's machine: the pushed source itself, and the runner by itself."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import kernel_runner
from pipeline.config import Paths
from pipeline.kernel import verify
from pipeline.kernel_source import Kernel
from pipeline.recipes import PRESETS
from tests.support import ROOT, here, write_download
from tests.test_layers import packages


def test_the_pushed_source_puts_out_what_was_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stages run in the unpacked project; for PyTorch's sake train and predict run in this process."""
    real, ran = subprocess.run, []

    def run(command: list[str], cwd: Path, **more: Any) -> "subprocess.CompletedProcess[Any]":
        stage = command[2].removeprefix("pipeline.")
        ran.append(stage)
        if stage in ("download", "preprocess"):
            return real(command, cwd=cwd, **more)
        return here(stage, *command[3:], cwd=cwd)

    write_download(tmp_path / "input/tiny")
    ordered = Kernel("tiny", "my-run", PRESETS["rehearsal"].with_epochs(1), user="user")
    ordered.write_source(tmp_path, print)
    for name, value in (("INPUT", tmp_path / "input"), ("WORKING", tmp_path / "output"), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"PIPELINE_KERNEL_{name}", str(value))
    monkeypatch.setattr(subprocess, "run", run)
    runpy.run_path(str(tmp_path / "main.py"), run_name="__main__")
    assert ran == ["download", "preprocess", "train", "predict"]
    came = Paths(models=tmp_path / "output/data/models", submissions=tmp_path / "output/submissions")
    assert verify(ordered, came).result.epochs == 1


def test_it_looks_for_all_that_the_stages_import_as_the_requirements_have_it() -> None:
    needed = set().union(*map(packages, ("download", "preprocess", "train", "predict")))
    assert needed - {"tensorboard"} == set(kernel_runner.NEEDED) - {"tensorboard"}  # PyTorch imports that
    listed = (ROOT / "requirements.txt").read_text()
    for package in kernel_runner.NEEDED.values():
        assert f"\n{package}>" in listed, package
    assert packages("kernel_runner") == set()


def test_what_is_missing_is_named_or_with_internet_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_more: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(kernel_runner, "NEEDED", {"numpy": "numpy", "no_such_module": "tqdm"})
    (tmp_path / "requirements.txt").write_text("tqdm-other>=1\ntqdm>=4.66,<5  # bars\nnumpy>=1\n")
    monkeypatch.setattr(kernel_runner, "ORDER", {"internet": False})
    with pytest.raises(SystemExit, match="this machine lacks tqdm: push the kernel again with --internet --force"):
        kernel_runner.install_missing(tmp_path)
    assert not commands
    monkeypatch.setattr(kernel_runner, "ORDER", {"internet": True})
    kernel_runner.install_missing(tmp_path)
    assert commands == [[sys.executable, "-m", "pip", "install", "--quiet", "tqdm>=4.66,<5"]]


def test_it_finds_the_files_where_kaggle_puts_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_runner, "INPUT", tmp_path)
    with pytest.raises(SystemExit, match=f"error: tiny is not below {tmp_path}: join the competition"):
        kernel_runner.competition_files("tiny")
    for below in ("competitions/tiny", "tiny"):
        (tmp_path / below).mkdir(parents=True)
        assert kernel_runner.competition_files("tiny") == tmp_path / below


def test_a_stage_that_fails_ends_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        kernel_runner.run([sys.executable, "-c", "raise SystemExit(4)"], tmp_path)
    assert ended.value.code == 4
