"""Two processes on a CPU (gloo), started once by torchrun: a whole run, then one step, then a run that loses one.

This file is also their program: torchrun --nproc_per_node=2 -m -- tests.training.test_processes FOLDER.
"""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline import train
from pipeline.recipes import PRESETS, WHITENED_STEM, ModelConfig, TrainConfig
from pipeline.store import atomic, runs
from pipeline.store.runs import Run
from pipeline.training.device import ALONE, Device, World
from pipeline.training.state import start
from pipeline.training.step import TrainStep
from tests.support import ROOT
from tests.training.tiny import SLUG, write_tiny

pytestmark = pytest.mark.timeout(500)  # of each; it also keeps them together, for the one launch
CPU = Device("cpu", "fp32")
CONFIG = dataclasses.replace(
    PRESETS["rehearsal"], optimizer="sgd", momentum=0.0, weight_decay=0.0, batch_size=31, learning_rate=0.1,
    warmup_epochs=0.0,
)  # fmt: skip
WHITENED = dataclasses.replace(
    CONFIG, epochs=1, model=ModelConfig("small", WHITENED_STEM, (8,), (1,), (2,), pooled=True, whitened=True)
)
GENERATOR = np.random.default_rng(0)
IMAGES = torch.from_numpy(GENERATOR.integers(0, 256, (31, 32, 32, 3), dtype=np.uint8))
LABELS = torch.from_numpy(GENERATOR.integers(0, 10, 31))


# Mixed images, EMA, and a last batch of an odd size.
OPTIONS = ["--cutmix", "1", "--ema-decay", "0.8", "--batch-size", "61", "--optimizer", "sgd", "--learning-rate", "0.01"]


def arguments(place: Path, name: str, epochs: int) -> list[str]:
    folders = ["--processed", str(place / "processed"), "--models", str(place / "models")]
    recipe = ["--preset", "rehearsal", "--device", "cpu", "--competition", SLUG, "--epochs", str(epochs), *OPTIONS]
    return [*recipe, *folders, "--run", name]


def after(world: World, training: bool, config: TrainConfig = CONFIG, steps: int = 1) -> dict[str, Tensor]:
    """Gradients, weights, statistics and counts after steps on a batch, the first process's statistics for all.

    Without `training` the norms take no statistics of the batch, of which each process has a share of its own.
    """
    state = start(config, CPU, world)
    state.model.train(training)
    step = TrainStep(state, config, CPU, steps, world=world)
    for _ in range(steps):
        step(IMAGES[world.share], LABELS[world.share], len(IMAGES))
    world.take_first_buffers(state.model)
    gradients = {f"gradient of {name}": p.grad for name, p in state.model.named_parameters() if p.grad is not None}
    counts = {"loss": world.total(state.loss_sum), "correct": world.total(state.correct)}
    return gradients | dict(state.model.state_dict()) | counts


def main(folder: Path) -> int:
    """What each of the two processes does; the exit code."""
    rank, limit = int(os.environ["RANK"]), timedelta(seconds=100)
    forbidden = mock.patch.object(atomic, "replacing", side_effect=AssertionError("the second process writes"))
    with forbidden if rank else nullcontext():
        if code := train.main(arguments(folder, "two", 2)):
            return code
    # Now in a group that is there already, as Ray Train or accelerate make it.
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=limit)
    world = World(rank, 2)
    found = [after(world, training=False), after(world, training=True), after(world, False, WHITENED, steps=2)]
    torch.save(found, folder / f"found-{rank}.pt")
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    with redirect_stdout(io.StringIO()):
        return train.main(arguments(folder, "dying", 4000))


@dataclass(frozen=True)
class Launched:
    """What torchrun left: its folder, and what it said until the second process was killed."""

    folder: Path
    code: int
    output: str
    errors: str


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("launched")
    write_tiny(folder / "processed", train=200, test=40)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "--"]
    command = [*launcher, __name__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    errors = folder / "errors"
    with (
        errors.open("w") as stream,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True) as torchrun,
    ):
        while not (folder / "models/dying" / runs.CHECKPOINT).exists() and torchrun.poll() is None:
            time.sleep(0.05)
        if torchrun.poll() is None:
            torchrun.send_signal(signal.SIGSTOP)  # else it may interrupt the first process before that notices
            os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)
            deadline = time.monotonic() + 60
            while "error: " not in errors.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            torchrun.send_signal(signal.SIGCONT)
        output, _ = torchrun.communicate(timeout=100)
    return Launched(folder, torchrun.returncode, output, errors.read_text())


def test_torchrun_trains_one_run_and_the_first_process_alone_writes_and_speaks(launched: Launched) -> None:
    said = [launched.errors.count(text) for text in ("run two, model", "epoch 2/2")] + [launched.output.count("next: ")]
    assert said == [1, 1, 1], launched.errors
    assert train.main(arguments(launched.folder, "one", 2)) == 0
    metrics = [(launched.folder / "models" / name / runs.METRICS).read_text().splitlines() for name in ("two", "one")]
    for two, one in zip(*(map(json.loads, lines) for lines in metrics), strict=True):
        # Statistics and mixed pairs are each process's own, so they agree only roughly.
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.1)
        assert two["train_loss"] != one["train_loss"]  # the work was shared
    found = Run.open(launched.folder / "models", "two")  # complete, and whole
    found.check_weights()
    assert found.result.epochs == 2


def test_gradients_are_the_whole_batchs_and_statistics_the_first_processs(launched: Launched) -> None:
    found = [torch.load(launched.folder / f"found-{rank}.pt", weights_only=True) for rank in (0, 1)]
    expected = after(ALONE, training=False), after(ALONE, False, WHITENED, steps=2)
    for plain, _, whitened in found:
        for values, others in zip((plain, whitened), expected, strict=True):
            assert values.keys() == others.keys()  # in the second step the stem's bias has no gradient
            for name, value in others.items():
                torch.testing.assert_close(values[name], value, rtol=1e-4, atol=1e-5, msg=name)
    (_, first, _), (_, second, _) = found
    assert all(torch.equal(second[name], value) for name, value in first.items() if "running" in name)
    alone = after(ALONE, training=True)
    assert not torch.equal(alone["bn1.running_mean"], first["bn1.running_mean"])  # of its own share


def test_a_process_that_dies_ends_the_other_with_a_clear_error(launched: Launched) -> None:
    assert launched.code != 0
    assert "another one has ended" in launched.errors and "run the same command again" in launched.errors


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
