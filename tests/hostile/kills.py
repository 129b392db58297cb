"""Signals at random moments: a stage is killed, what is left is looked at, and the same command run again."""

import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.store import atomic, ledger
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.submissions import Sidecar
from tests.forked_client import FORKING
from tests.support import ROOT, SLUG, clean_environment, here, serve, write_download

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DYING = 5.0  # seconds that a child of a killed process may need to notice
ENDING = 60.0  # seconds to begin, and to end after SIGTERM and SIGINT
TRAINING = ("pipeline.training.session", "torch._dynamo")
IMPORTED_LATE = {  # what a stage imports when it needs it
    "train": TRAINING, "sweep": TRAINING,
    "predict": ("pipeline.gap.prediction", "sklearn.linear_model", "sklearn.model_selection"),
}  # fmt: skip

# --- what is killed ---------------------------------------------------------------------------------------------

_SLUG = ("--competition", SLUG)
_TINY = (*_SLUG, "--preset", "rehearsal", "--batch-size", "20", "--device", "cpu", "--epochs", "2", "--run", "tiny-run")
_SWEEP = ("--search", "learning_rate=log:0.001:0.1", "--trials", "2", "--heartbeat", "1", "--name", "tiny")
# By name: the case whose end is this one's beginning ("": an empty place), and the command.
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "download": ("", "download", _SLUG),
    "from": ("", "download", (*_SLUG, "--from", f"{SLUG}.zip")),
    "preprocess": ("download", "preprocess", _SLUG),
    "train": ("preprocess", "train", _TINY),
    "predict": ("train", "predict", ("--device", "cpu")),
    "submit": ("predict", "submit", ("--poll", "0.1")),
    "check": ("submit", "check", _SLUG),
    "sweep": ("preprocess", "sweep", (*_SLUG, "--preset", "rehearsal", "--epochs", "1", *_SWEEP)),
}


class Template:
    """Where each case begins, where it ends when nothing disturbs it, and how long it takes; made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds: dict[str, float] = {}  # of those that have ended
        source, rows = write_download(folder / "source"), [f"{100 + k},{k % 10}\n" for k in range(30)]
        (folder / "empty").mkdir()
        (folder / "empty/source").symlink_to(source)  # the mock server remembers whose files it served
        (folder / "empty/labels.csv").write_text("".join(["ID,Labels\n", *rows]))
        shutil.make_archive(str(folder / "empty" / SLUG), "zip", source)

    def begin(self, name: str, place: Path) -> None:
        """Make `place` one in which the case can begin."""
        before = CASES[name][0]
        shutil.copytree(self.end(before) if before else self._folder / "empty", place, symlinks=True)

    def end(self, name: str) -> Path:
        """The place in which the case ended undisturbed."""
        place = self._folder / "ends" / name
        if not place.exists():
            self.begin(name, place)
            with _environment(place) as environ:
                began = time.monotonic()
                done = _finish(name, place, environ)
                self.seconds[name] = time.monotonic() - began
            assert done.returncode == 0, done.stderr
        return place


@contextmanager
def _environment(place: Path) -> Iterator[dict[str, str]]:
    """The variables for a stage, with the mock server running."""
    own = {"HOME": clean_environment()["HOME"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with serve(place) as kaggle:
        yield {**kaggle.environment, **own}


def _finish(name: str, place: Path, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """The command, undisturbed, in this process: it need not import PyTorch again."""
    import torch

    _, stage, arguments = CASES[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that is killed: with more of them, weights differ in their last bits
    try:
        return here(stage, *arguments, cwd=place, environ=environ)
    finally:
        torch.set_num_threads(threads)


def _become(stage: str, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], begun: Event) -> None:
    """In a fork: `python -m pipeline.STAGE ARGUMENTS`, with its slow imports done when it has `begun`.

    They take longer than its work, which is where a kill must come.
    """
    os.setsid()
    for number, name in enumerate((os.devnull, os.devnull, str(folder / ".stderr"))):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    main = importlib.import_module(f"pipeline.{stage}").main
    for module in IMPORTED_LATE.get(stage, ()):
        importlib.import_module(module)
    begun.set()
    sys.exit(main(arguments))


# --- a kill -----------------------------------------------------------------------------------------------------


def kill_once(rng: random.Random, name: str, template: Template, folder: Path) -> tuple[int, list[str]]:
    """Kill the case at a random moment in a fresh `folder`, look, run it again and compare; removes the folder.

    Returns the exit code of what was killed (0: it was faster than the signal), and what was wrong.
    """
    number = rng.choice(SIGNALS)
    group = number != signal.SIGTERM and rng.random() < 0.5  # Ctrl-C in a terminal goes to all of the group
    whole = template.end(name)
    moment = 0.9 * max(rng.random(), rng.random()) * template.seconds[name]  # the end, where it writes, more often
    template.begin(name, folder)
    if name == "sweep":  # its runs differ from time to time
        whole = template.end("preprocess")
    book = folder / "submissions" / ledger.NAME
    before = book.read_bytes() if book.is_file() else b""
    with _environment(folder) as environ:
        code, problems = _kill(name, number, group, moment, folder, environ)
        problems += _half_files(folder, whole) + _lost_lines(before, book)
        _let_minutes_pass(book, before)
        again = _finish(name, folder, environ)
    if again.returncode:
        problems.append(f"run again: {again.returncode}, {again.stderr[-300:]}")
    else:
        problems += _missing(name, folder, whole)
    problems += _half_files(folder, whole) + _lost_lines(before, book) + _double_submissions(folder)
    shutil.rmtree(folder)
    what = f"{name}, {number.name} to {'the group' if group else 'the process'} after {moment:.2f} s, code {code}"
    return code, [f"{what}: {problem}" for problem in problems]


def _let_minutes_pass(book: Path, before: bytes) -> None:
    """Date the ledger's new lines back: whoever comes back at once may be made to wait for what was just sent."""
    if book.is_file() and (new := book.read_bytes()[len(before) :]):
        earlier = (datetime.now(UTC) - timedelta(minutes=10)).isoformat(timespec="seconds")
        book.write_bytes(before + re.sub(rb"^[0-9T:+-]{25}(?=,)", earlier.encode(), new, flags=re.MULTILINE))


def _kill(
    name: str, number: signal.Signals, group: bool, moment: float, folder: Path, environ: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Start the command, send the signal, wait; its exit code, and what was wrong with how it ended."""
    begun = FORKING.Event()
    process = FORKING.Process(target=_become, args=(*CASES[name][1:], folder, dict(environ), begun))
    process.start()
    leader = process.pid or 0
    try:
        assert begun.wait(ENDING)
        process.join(moment)
        if process.exitcode is None:
            (os.killpg if group else os.kill)(leader, number)
        process.join(ENDING)
        code, errors, problems = process.exitcode, (folder / ".stderr").read_text(errors="replace")[-500:], []
        if code not in (0, 130, -number):  # the latter where it was not handled yet
            problems.append(f"ended with {code}: {errors}")
        elif code == 130 and ("Traceback" in errors or "Exception ignored" in errors):
            problems.append(f"traceback: {errors}")
        deadline = time.monotonic() + DYING
        while (alive := session(leader)) and time.monotonic() < deadline:
            time.sleep(0.05)
        problems += [f"survived: process {pid}" for pid in alive]
    finally:
        for pid in session(leader):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()
    return process.exitcode or 0, problems


def session(leader: int) -> list[int]:
    """The processes of the session that `leader` began, which their children stay in; without those that ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
            if int(session) == leader and state not in "ZX":
                found.append(int(path.parent.name))
    return found


# --- what must not be left: half files, lost lines, two submissions, another result -----------------------------
# Each function returns what is wrong, a line each.


def _half_files(place: Path, whole: Path) -> list[str]:
    """Files and folders under their final names that are not complete; `whole`: where nothing was killed."""
    wrong = []
    for path in sorted([*(place / "data").rglob("*"), *(place / "submissions").rglob("*")]):
        name = path.relative_to(place)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and path.is_file() and (why := _incomplete(path, whole / name)):
            wrong.append(f"half file {name}: {why}")
    for folder in [*place.glob("data/raw/[!.]*"), *place.glob("data/processed/[!.]*")]:
        if not (folder / MANIFEST).is_file():
            wrong.append(f"half folder {folder.relative_to(place)}: no manifest")
    return wrong


def _incomplete(path: Path, whole: Path) -> str:
    """Why the file is not complete, or ""."""
    try:
        if path.name == MANIFEST:
            manifest = Manifest.read(path.parent)
            return "" if manifest and not manifest.changed(path.parent) else "its files are not as recorded"
        if path.name == ledger.NAME:
            ledger.read(path)
        elif path.suffix in (".json", ".jsonl"):
            for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
                json.loads(text)
        elif path.suffix in (".pt", ".npz"):
            with zipfile.ZipFile(path) as archive:
                return f"{bad} is damaged" if (bad := archive.testzip()) else ""
        elif _repeatable(path) and whole.is_file() and path.read_bytes() != whole.read_bytes():
            return "it is another than where nothing was killed"
        elif path.suffix == ".csv" and not atomic.partial(path).exists():  # (with one, predict knows of the kill)
            sidecar = Sidecar.read(path)
            return "" if sidecar and sidecar.csv_sha256 == FileRecord.of(path).sha256 else "its sidecar is another's"
    except (PipelineError, ValueError, OSError, zipfile.BadZipFile) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _repeatable(path: Path) -> bool:
    """Whether a file is the same to the byte whenever it is written: a download, arrays, weights and CSVs."""
    repeated = path.name == "LATEST" or path.suffix in (".npy", ".safetensors", ".csv") or "raw" in path.parts
    return repeated and path.name not in (MANIFEST, ledger.NAME)


def _lost_lines(before: bytes, book: Path) -> list[str]:
    now = book.read_bytes() if book.is_file() else b""
    return [] if now.startswith(before) else [f"lost line: {before!r} became {now!r}"]


def _double_submissions(place: Path) -> list[str]:
    """CSVs that the mock server got more than once."""
    state = place / "state/state.json"
    received = json.loads(state.read_bytes())["submissions"] if state.is_file() else []
    return [f"sent twice: {sha}" for sha, count in Counter(item["sha256"] for item in received).items() if count > 1]


def _missing(name: str, place: Path, whole: Path) -> list[str]:
    """What is not there of what is repeatable (`_half_files` compares it), and in the ledger."""
    files = [path.relative_to(whole) for top in ("data", "submissions") for path in (whole / top).rglob("*")]
    wrong = [f"missing: {file}" for file in files if _repeatable(file) and not (place / file).exists()]
    entries = ledger.read(place / "submissions" / ledger.NAME)
    states = [entry.status for entry in ledger.current(entries, SLUG)]
    if name == "predict" and len(ledger.predictions(entries, SLUG)) != 1:
        wrong.append("lost prediction: the ledger has none of this CSV")
    if name in ("submit", "check") and states != [ledger.COMPLETE]:
        wrong.append(f"other result: the ledger says {states}")
    return wrong
