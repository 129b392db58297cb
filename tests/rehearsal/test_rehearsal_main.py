"""python -m pipeline.rehearsal, as a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.rehearsal.__main__ import main
from tests.support import ROOT

Rehearse = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def rehearse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Rehearse:
    """The command line in this process; what its COMMAND prints is caught as well."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "My Files"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    return folder


def test_the_embedded_competition_is_the_default_and_is_written_once(tmp_path: Path, rehearse: Rehearse) -> None:
    first = rehearse("--", "sh", "-c", "echo $PIPELINE_COMPETITION; exit 3")
    assert (first.returncode, first.stdout) == (3, "rehearsal-digits\n")
    assert first.stderr.startswith("rehearsal: mock Kaggle server on 127.0.0.1:")
    assert first.stderr.endswith(", serving rehearsal-digits from the embedded digits\n")
    state = tmp_path / "data" / "rehearsal" / "rehearsal-digits"
    hidden = state / "competition" / "cifar_test_nolabel.pkl"
    written = hidden.stat().st_mtime_ns
    assert rehearse("sh", "-c", "exit 0").returncode == 0  # the -- may be left out
    assert hidden.stat().st_mtime_ns == written
    assert (state / "labels.csv").is_file()


def test_a_folder_and_its_memory(tmp_path: Path, served: Path, rehearse: Rehearse) -> None:
    first = rehearse("--folder", str(served), "--", "sh", "-c", "echo $PIPELINE_COMPETITION $PIPELINE_REHEARSAL")
    assert first.stdout == f"rehearsal-my-files --folder '{served}'\n"
    (tmp_path / "l.csv").write_text("ID,Labels\n0,1\n1,2\n")
    scored = rehearse("--folder", str(served), "--labels", "l.csv", "--", "sh", "-c", "echo $PIPELINE_REHEARSAL")
    assert scored.stdout == f"--folder '{served}' --labels l.csv\n"
    (tmp_path / "elsewhere" / "My Files").mkdir(parents=True)
    (tmp_path / "elsewhere" / "My Files" / "b.txt").write_text("b")
    other = rehearse("--folder", "elsewhere/My Files", "--", "true")
    assert other.returncode == 2
    assert str(served) in other.stderr
    assert "rename the folder that is served" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "no COMMAND to run: --help has examples"),
        (["--labels", "x.csv", "--", "true"], 2, "--labels goes with --folder"),
        (["--folder", "none", "--", "true"], 3, "--folder none: does not exist"),
        (["--folder", "My Files", "--", "no-such"], 2, "no-such cannot be run (No such file or directory)"),
        (["--folder", "My Files", "--", "./My Files/a.txt"], 2, "cannot be run (Permission denied)"),
        (["--folder", "My Files", "--", "sh", "-c", "kill -9 $$"], 137, ""),
    ],
)
def test_exit_codes(served: Path, rehearse: Rehearse, arguments: list[str], code: int, text: str) -> None:
    done = rehearse(*arguments)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_reach_the_command(tmp_path: Path, served: Path, signum: signal.Signals) -> None:
    script = (  # not sh, which cannot trap a signal that is ignored when it starts
        "import signal, sys, time\n"
        "def end(*_): print('told', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGINT, end); signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.rehearsal", "--folder", str(served), "--", sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        begin = time.monotonic()
        process.send_signal(signum)
        output, errors = process.communicate(timeout=20)
    assert output == "told\n"
    assert process.returncode == 130
    assert "Traceback" not in errors  # what there is to say, COMMAND has said
    assert time.monotonic() - begin < 10
