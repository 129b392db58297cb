"""What several tests need: a tiny competition, a tiny run, and the real command line."""

import functools
import importlib
import io
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Paths
from pipeline.download import download
from pipeline.kaggle_api.client import Kaggle
from pipeline.predict import predict
from pipeline.preprocess import preprocess
from pipeline.rehearsal.state import State
from pipeline.store import runs
from pipeline.store.runs import RunCard
from tests.doubles import cpickle
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle

ROOT = Path(__file__).resolve().parents[1]
SLUG = "tiny"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Killed(BaseException):
    """Raised instead of a SIGKILL: nobody handles it, so nothing is saved (hostile/test_kills.py really kills)."""


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colour images uint8 (count, 32, 32, 3), redder than blue, each with its own gradient."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 32)
    slopes = rng.uniform(-40, 40, size=(2, count, 1, 1, 3))
    base = rng.uniform(60, 180, size=(count, 1, 1, 3)) + np.array([20, 0, -20])
    pixels = base + slopes[0] * ramp[:, None, None] + slopes[1] * ramp[None, :, None]
    pixels8: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return pixels8


def write_download(folder: Path, hidden: int = 30, seed: int = 0) -> Path:
    """A download in miniature: 5 x 20 training, 20 holdout and `hidden` test images, ids from 100 on."""
    batches = folder / "cifar-10-python" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    labels = [i % 10 for i in range(20)]
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        names = [f"{name}_{i}.png" for i in range(20)]
        (batches / name).write_bytes(cpickle.batch(name, images(20, seed + k), labels, names))
    (batches / "batches.meta").write_bytes(cpickle.batches_meta(20, NAMES))
    ids = np.arange(100, 100 + hidden, dtype=np.int64)
    (folder / "cifar_test_nolabel.pkl").write_bytes(cpickle.hidden(images(hidden, seed + 9), ids))
    return folder


def here(
    module: str, *arguments: object, cwd: Path, environ: Mapping[str, str] | None = None, merged: bool = False
) -> subprocess.CompletedProcess[str]:
    """`python -m pipeline.MODULE ARGUMENTS` in the folder `cwd`, within this process, which has PyTorch already.

    `merged`: as on a terminal, where stderr and stdout are one.
    """
    main = importlib.import_module(f"pipeline.{module}").main
    output = io.StringIO()
    errors = output if merged else io.StringIO()
    with (
        mock.patch.dict(os.environ, clean_environment() if environ is None else environ, clear=True),
        chdir(cwd),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        code = main([*map(str, arguments)])
    return subprocess.CompletedProcess([module], code, output.getvalue(), errors.getvalue())


def clean_environment() -> dict[str, str]:
    """This process's environment without credentials and without a home folder that may hold some."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAGGLE", "PIPELINE"))}
    return {**kept, "HOME": _empty_home().name}


@functools.cache
def _empty_home() -> "tempfile.TemporaryDirectory[str]":
    """One for this process: the client makes its settings folder in it."""
    return tempfile.TemporaryDirectory(prefix="home-")


def error_line(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of an error, after checking the exit code and that there is no traceback."""
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Return when it holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tree(folder: Path) -> dict[str, bytes]:
    """All visible files below `folder` and their contents."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def paths_in(cwd: Path) -> Paths:
    """The default folders, below `cwd`."""
    return Paths(cwd / "data/raw", cwd / "data/processed", cwd / "data/models", cwd / "submissions")


def prepare(cwd: Path, hidden: int = 30, seed: int = 0) -> Path:
    """A folder in which download and preprocess are done for SLUG; returns `cwd`."""
    template = Path(_prepared(hidden, seed).name)
    for made in ("source", "data/processed"):
        shutil.copytree(template / made, cwd / made)
    download(SLUG, paths_in(cwd), Kaggle({}), print, source=cwd / "source")
    return cwd


@functools.cache
def _prepared(hidden: int, seed: int) -> "tempfile.TemporaryDirectory[str]":
    """What `prepare` copies: preprocessed once in this process.  The download itself holds links, to its source."""
    folder = tempfile.TemporaryDirectory(prefix="prepared-")
    cwd = Path(folder.name)
    source = write_download(cwd / "source", hidden, seed)
    download(SLUG, paths_in(cwd), Kaggle({}), print, source=source)
    preprocess(SLUG, paths_in(cwd), print)
    return folder


def write_run(cwd: Path, name: str = "tiny-run", seed: int = 0) -> Path:
    """A finished run with untrained weights, made the latest; its folder."""
    from pipeline.model import resnet
    from tests.places import finish

    folder = finish(cwd, name, seed=seed)
    card = RunCard.read(folder)
    resnet.save(folder / runs.WEIGHTS, resnet.build(card.config.model, seed).state_dict(), card.config.model)
    runs.complete(folder, card)
    return folder


def predicted_place(cwd: Path) -> Path:
    """A folder with data, a run and its CSV, and labels.csv by which a third of it is wrong; returns it."""
    shutil.copytree(_predicted().name, cwd, ignore=shutil.ignore_patterns("raw"), dirs_exist_ok=True)
    download(SLUG, paths_in(cwd), Kaggle({}), print, source=cwd / "source")  # its links lead to this source
    return cwd


@functools.cache
def _predicted() -> "tempfile.TemporaryDirectory[str]":
    """What `predicted_place` copies: predicted once in this process."""
    folder = tempfile.TemporaryDirectory(prefix="predicted-")
    cwd = prepare(Path(folder.name))
    write_run(cwd)
    predict(paths_in(cwd), print, device="cpu")
    rows = [row.split(",") for row in (cwd / "submissions/tiny-run.csv").read_text().splitlines()[1:]]
    truth = [f"{i},{label if k % 3 else (int(label) + 1) % 10}" for k, (i, label) in enumerate(rows)]
    (cwd / "labels.csv").write_text("\n".join(["ID,Labels", *truth]) + "\n")
    return folder


@contextmanager
def serve(place: Path, *faults: str, pending: float = 0.0) -> Iterator[FaultyKaggle]:
    """The mock Kaggle server, serving what `predicted_place` made; a score takes `pending` seconds."""
    source, labels = place / "source", place / "labels.csv"
    with faulty_kaggle(source, place / "state", slug=SLUG, labels=labels, faults=faults) as kaggle:
        kaggle.state.pending_seconds = pending
        yield kaggle


def submit_by_hand(place: Path, kaggle: FaultyKaggle, csv: str = "submissions/tiny-run.csv") -> None:
    """What `kaggle competitions submit -c tiny -f CSV -m hello` leaves at Kaggle; README's blocks really run it."""
    send(kaggle.state, (place / csv).read_bytes(), Path(csv).name, "hello")


def send(state: State, content: bytes, name: str = "sub.csv", description: str = "") -> int:
    """A submission that this project knows nothing of; its ref."""
    token = state.start_upload(name, len(content))
    state.store_upload(token, content)
    return state.submit(token, description)
