"""Two processes with gloo, started by torchrun as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline import train
from pipeline.store import runs
from pipeline.store.runs import Run
from pipeline.training.device import ALONE, World
from tests.support import ROOT
from tests.training import two_processes
from tests.training.tiny import SLUG, write_tiny


def command(place: Path, name: str, *more: str) -> list[str]:
    # "--", because torchrun takes our --run for an abbreviation of its --run-path.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "--"]
    return [*launcher, "pipeline.train", *arguments(place, name, *more)]


def arguments(place: Path, name: str, *more: str) -> list[str]:
    folders = ["--processed", str(place / "processed"), "--models", str(place / "models")]
    recipe = ["--preset", "rehearsal", "--epochs", "2", "--device", "cpu", "--competition", SLUG]
    return [*recipe, *folders, "--run", name, *more]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "WORLD_SIZE", "LOCAL_RANK"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "processed")
    return tmp_path


def test_gradients_are_the_whole_batchs_and_statistics_the_first_processs(tmp_path: Path) -> None:
    script = Path(two_processes.__file__)
    with subprocess.Popen([sys.executable, script, "1", str(tmp_path)], env=environment()) as second:
        two_processes.main(0, tmp_path)
        assert second.wait(timeout=100) == 0
    found = [torch.load(tmp_path / f"found-{rank}.pt", weights_only=True) for rank in (0, 1)]
    expected = two_processes.one_step(ALONE)
    for rank in (0, 1):
        for name, value in expected.items():
            torch.testing.assert_close(found[rank]["step"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    alone = two_processes.statistics(World(0, 1))
    assert not torch.equal(alone["bn1.running_mean"], found[0]["statistics"]["bn1.running_mean"])  # of its own share
    for name, value in found[0]["statistics"].items():
        assert torch.equal(found[1]["statistics"][name], value), name


@pytest.mark.timeout(500)
def test_torchrun_trains_one_run_and_the_first_process_alone_writes_and_speaks(place: Path) -> None:
    """Mixed images, EMA, and a last batch of an odd size."""
    options = ["--cutmix", "1", "--ema-decay", "0.8", "--batch-size", "61", "--optimizer", "sgd", "--learning-rate",
               "0.01"]  # fmt: skip
    together = run(command(place, "two", *options))
    assert together.returncode == 0, together.stderr
    assert train.main(arguments(place, "one", *options)) == 0
    assert together.stdout.count("epoch 2/2") == 1
    assert together.stdout.count("next: ") == 1
    assert "2 processes" in together.stdout
    rows = [[json.loads(line) for line in metrics(place, name)] for name in ("two", "one")]
    for two, one in zip(*rows, strict=True):
        # Statistics and mixed pairs are each process's own, so they agree only roughly.
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.1)
        assert two["train_loss"] != one["train_loss"]  # the work was shared
    found = Run.open(place / "models", "two")  # complete, and whole
    found.check_weights()
    assert found.result.epochs == 2


def metrics(place: Path, name: str) -> list[str]:
    return (place / "models" / name / runs.METRICS).read_text().splitlines()


@pytest.mark.timeout(500)
def test_a_process_that_dies_ends_the_others_with_a_clear_error(place: Path) -> None:
    arguments = command(place, "dying", "--epochs", "4000")
    with subprocess.Popen(
        arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as launcher:
        deadline = time.monotonic() + 300
        while not (place / "models/dying" / runs.CHECKPOINT).exists():
            assert time.monotonic() < deadline and launcher.poll() is None
            time.sleep(0.1)
        os.kill(second_process(launcher.pid), signal.SIGKILL)
        assert launcher.stderr is not None
        message = launcher.stderr.read()
    assert launcher.returncode != 0
    assert "lost another one, which has ended" in message
    assert "run the same command again" in message


def second_process(launcher: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ranks = {dict(_environ(int(pid))).get("RANK"): int(pid) for pid in children}
    return ranks["1"]


def _environ(pid: int) -> list[tuple[str, str]]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return [(name, value) for name, _, value in (entry.partition("=") for entry in entries)]
