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
from safetensors.torch import load_file

from pipeline import train
from pipeline.store import runs
from pipeline.training.device import ALONE, World, join
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


def test_gradients_and_statistics_are_the_whole_batchs(tmp_path: Path) -> None:
    script = Path(two_processes.__file__)
    with subprocess.Popen([sys.executable, script, "1", str(tmp_path)], env=environment()) as second:
        two_processes.main(0, tmp_path)
        assert second.wait(timeout=100) == 0
    found = torch.load(tmp_path / "shared.pt", weights_only=True)
    for name, value in two_processes.gradients(ALONE).items():
        torch.testing.assert_close(found["gradients"][name], value, rtol=1e-9, atol=1e-12, msg=name)
    for name, value in two_processes.weights(ALONE).items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.timeout(500)
def test_torchrun_trains_what_one_process_trains(place: Path) -> None:
    """With everything on that could tell them apart: mixed images, averages, a last batch of an odd size."""
    options = ["--cutmix", "1", "--ema-decay", "0.8", "--batch-size", "61", "--optimizer", "sgd", "--learning-rate",
               "0.01"]  # fmt: skip
    together = run(command(place, "two", *options))
    assert together.returncode == 0, together.stderr
    assert train.main(arguments(place, "one", *options)) == 0
    assert together.stdout.count("epoch 2/2") == 1  # the first process alone speaks
    assert together.stdout.count("next: ") == 1
    assert "2 processes" in together.stdout
    rows = [[json.loads(line) for line in metrics(place, name)] for name in ("two", "one")]
    for two, one in zip(*rows, strict=True):
        # Rounding grows from step to step, so ten steps agree less closely than one.
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=5e-3)
        assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=2e-2)
    weights = [load_file(place / "models" / name / runs.WEIGHTS) for name in ("two", "one")]
    assert not torch.equal(weights[0]["fc.weight"], weights[1]["fc.weight"])  # the work was shared


def metrics(place: Path, name: str) -> list[str]:
    return (place / "models" / name / runs.METRICS).read_text().splitlines()


def test_each_row_of_a_batch_is_exactly_one_processs() -> None:
    rows = torch.arange(61)
    shares = [rows[World(rank, 3).share] for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert torch.equal(rows[ALONE.share], rows)


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


def test_a_process_group_that_is_there_is_used_and_left(tmp_path: Path) -> None:
    """As Ray Train, Fabric or accelerate have it: they made the group, and go on with it."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with join(torch.device("cpu")) as world:
            assert world == World(0, 1)
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join(torch.device("cpu")) as world:
        assert world is ALONE
    assert not torch.distributed.is_initialized()
