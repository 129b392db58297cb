"""The runner by itself; that it runs the stages is tested in tests/test_kernel.py."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import kernel_runner
from tests.support import ROOT
from tests.test_layers import packages


def test_it_looks_for_all_that_the_stages_import() -> None:
    needed = set().union(*map(packages, ("download", "preprocess", "train", "predict")))
    assert needed - {"tensorboard"} == set(kernel_runner.NEEDED) - {"tensorboard"}  # PyTorch imports that


def test_each_of_these_is_in_the_requirements() -> None:
    listed = (ROOT / "requirements.txt").read_text()
    for package in kernel_runner.NEEDED.values():
        assert f"\n{package}>" in listed, package


def test_it_needs_nothing_but_python_itself() -> None:
    assert packages("kernel_runner") == set()


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would install something; nothing runs."""
    commands: list[list[str]] = []

    def run(command: list[str], **_more: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(kernel_runner, "NEEDED", {"numpy": "numpy", "no_such_module": "tqdm"})
    return commands


def test_what_is_missing_is_named_without_internet(monkeypatch: pytest.MonkeyPatch, installs: list[list[str]]) -> None:
    monkeypatch.setattr(kernel_runner, "ORDER", {"internet": False})
    with pytest.raises(SystemExit, match="this machine lacks tqdm: push the kernel again with --internet --force"):
        kernel_runner.install_missing(ROOT)
    assert not installs


def test_what_is_missing_is_installed_with_internet(
    monkeypatch: pytest.MonkeyPatch, installs: list[list[str]], tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_runner, "ORDER", {"internet": True})
    (tmp_path / "requirements.txt").write_text("tqdm-other>=1\ntqdm>=4.66,<5  # bars\nnumpy>=1\n")
    kernel_runner.install_missing(tmp_path)
    assert installs == [[sys.executable, "-m", "pip", "install", "--quiet", "tqdm>=4.66,<5"]]


def test_it_finds_the_files_where_kaggle_puts_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_runner, "INPUT", tmp_path)
    monkeypatch.setattr(kernel_runner, "ORDER", {"competition": "tiny"})
    with pytest.raises(SystemExit, match=f"error: tiny is not below {tmp_path}: join the competition"):
        kernel_runner.main()
    for below in ("competitions/tiny", "tiny"):
        (tmp_path / below).mkdir(parents=True)
        assert kernel_runner.competition_files("tiny") == tmp_path / below


def test_a_stage_that_fails_ends_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        kernel_runner.run([sys.executable, "-c", "raise SystemExit(4)"], tmp_path)
    assert ended.value.code == 4
