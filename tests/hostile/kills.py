"""Signals at random moments: a stage is killed, what is left is looked at, and the same command run again."""

import importlib
import json
import multiprocessing
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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from pipeline.errors import PipelineError
from pipeline.store import atomic, ledger
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.submissions import Sidecar
from tests.hostile.surroundings import copy_project
from tests.support import ROOT, SLUG, clean_environment, here, serve, write_download

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DYING = 5.0  # seconds that a child of a killed process may need to notice
ORPHANS = 120.0  # seconds that the stages of a killed run_all.sh may need to end
ENDING = 60.0  # seconds to end after SIGTERM and SIGINT
TIMEOUT = 300.0  # seconds
RUN = "tiny-run"

# --- what is killed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A command, killed in a copy of what an earlier case left."""

    after: str  # the case whose end is this one's beginning; "": an empty place
    arguments: tuple[str, ...]  # of `python -m`; or run_all.sh and its own
    kaggle: bool = False  # whether it needs a mock server beside it; run_all.sh brings its own

    @property
    def script(self) -> bool:
        return self.arguments[0].endswith(".sh")


_SLUG = ("--competition", SLUG)
_TRAINING = (*_SLUG, "--preset", "rehearsal", "--batch-size", "20", "--device", "cpu")
_SWEEP = ("--search", "learning_rate=log:0.001:0.1", "--trials", "2", "--heartbeat", "1", "--name", "tiny")
CASES = {
    "download": Case("", ("pipeline.download", *_SLUG), kaggle=True),
    "from": Case("", ("pipeline.download", *_SLUG, "--from", f"{SLUG}.zip")),
    "preprocess": Case("download", ("pipeline.preprocess", *_SLUG)),
    "train": Case("preprocess", ("pipeline.train", *_TRAINING, "--epochs", "4", "--run", RUN)),
    "predict": Case("train", ("pipeline.predict", "--run", RUN, "--device", "cpu")),
    "submit": Case("predict", ("pipeline.submit", "--poll", "0.1"), kaggle=True),
    "check": Case("submit", ("pipeline.check", *_SLUG), kaggle=True),
    "sweep": Case("preprocess", ("pipeline.sweep", *_SLUG, "--preset", "rehearsal", "--epochs", "1", *_SWEEP)),
    "run_all": Case("", ("./run_all.sh", "--rehearsal", "--data", "source", "--epochs", "2", "--run", RUN)),
}


class Template:
    """Where each case begins, where it ends when nothing disturbs it, and how long it takes; made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._empty = folder, folder / "empty"
        self._seconds: dict[str, float] = {}
        source = write_download(folder / "source")
        copy_project(self._empty)
        (self._empty / "source").symlink_to(source)  # the mock server remembers whose files it served
        (self._empty / "labels.csv").write_text("ID,Labels\n" + "".join(f"{100 + k},{k % 10}\n" for k in range(30)))
        shutil.make_archive(str(self._empty / SLUG), "zip", source)

    def begin(self, name: str, place: Path) -> None:
        """Make `place` one in which the case can begin."""
        before = CASES[name].after
        shutil.copytree(self.end(before) if before else self._empty, place, symlinks=True)

    def end(self, name: str) -> Path:
        """The place in which the case ended undisturbed."""
        place = self._folder / "ends" / name
        if not place.exists():
            self.begin(name, place)
            with _environment(CASES[name], place) as environ:
                began = time.monotonic()
                done = _finish(CASES[name], place, environ)
                self._seconds[name] = time.monotonic() - began
            assert done.returncode == 0, done.stderr
        return place

    def seconds(self, name: str) -> float:
        """What the undisturbed case takes."""
        self.end(name)
        return self._seconds[name]


@contextmanager
def _environment(case: Case, place: Path) -> Iterator[dict[str, str]]:
    """The variables for a case, with the mock server running where it needs one."""
    own = {**clean_environment(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PIPELINE_PYTHON": sys.executable}
    if case.kaggle:
        with serve(place) as kaggle:
            yield {**kaggle.environment, **{name: own[name] for name in ("HOME", "PYTHONPATH", "OMP_NUM_THREADS")}}
    else:
        yield own


def _finish(case: Case, place: Path, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """The command, undisturbed: a stage in this process, which need not import PyTorch again."""
    if case.script:
        return subprocess.run(
            case.arguments, cwd=place, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    module, *options = case.arguments
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that is killed: with more of them, weights differ in their last bits
    try:
        return here(module.removeprefix("pipeline."), *options, cwd=place, environ=environ)
    finally:
        torch.set_num_threads(threads)


def _become(command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path, begun: Event) -> None:
    """In a fork of a process that has imported PyTorch and the stages: `python -m COMMAND`, or the script."""
    os.setsid()
    for number, name in enumerate((os.devnull, os.devnull, str(log))):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    begun.set()
    module, *options = command
    if module.endswith(".sh"):
        os.execve(module, [*command], environ)
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    sys.exit(importlib.import_module(module).main(options))


# --- a kill -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One kill, and what was wrong after it."""

    code: int  # with which the process ended; 0: it was faster than the signal
    problems: tuple[str, ...]


def kill_once(rng: random.Random, name: str, template: Template, folder: Path) -> Outcome:
    """Kill the case at a random moment in a fresh `folder`, look, run it again and compare; removes the folder."""
    case, number = CASES[name], rng.choice(SIGNALS)
    group = number != signal.SIGTERM and rng.random() < 0.5  # Ctrl-C in a terminal goes to all of the group
    moment = max(rng.random(), rng.random()) * template.seconds(name)  # the end, where it writes, more often
    template.begin(name, folder)
    whole = template.end("preprocess" if name == "sweep" else name)  # the names of a sweep's runs are not repeatable
    book = folder / "submissions" / ledger.NAME
    before = book.read_bytes() if book.is_file() else b""
    with _environment(case, folder) as environ:
        code, problems = _kill(case, number, group, moment, folder, environ)
        problems += half_files(folder, whole) + _lost_lines(before, book)
        _let_minutes_pass(book, before)
        again = _finish(case, folder, environ)
    if again.returncode:
        problems.append(f"run again: {again.returncode}, {again.stderr[-300:]}")
    else:
        problems += _unlike(name, folder, whole)
    problems += half_files(folder, whole) + _lost_lines(before, book) + _double_submissions(folder)
    shutil.rmtree(folder)
    whom = "the group" if group else "the process"
    what = f"{name}, {number.name} to {whom} after {moment:.2f} s, code {code}"
    return Outcome(code, tuple(f"{what}: {problem}" for problem in problems))


def _let_minutes_pass(book: Path, before: bytes) -> None:
    """Date the ledger's new lines back: whoever comes back at once may be made to wait for what was just sent."""
    if book.is_file() and (new := book.read_bytes()[len(before) :]):
        earlier = (datetime.now(UTC) - timedelta(minutes=10)).isoformat(timespec="seconds")
        book.write_bytes(before + re.sub(rb"^[0-9T:+-]{25}(?=,)", earlier.encode(), new, flags=re.MULTILINE))


def _kill(
    case: Case, number: signal.Signals, group: bool, moment: float, folder: Path, environ: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Start the command, send the signal, wait; its exit code, and what was wrong with how it ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(case.arguments[0] for case in CASES.values() if not case.script)])
    log, begun = folder / ".stderr", context.Event()
    process = context.Process(target=_become, args=(case.arguments, folder, dict(environ), log, begun))
    process.start()
    leader = process.pid or 0
    try:
        assert begun.wait(ENDING)
        process.join(moment)
        if process.exitcode is None:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(leader, number)
        process.join(ENDING)
        problems = _ending(case, number, process.exitcode, log.read_text(errors="replace"))
        # A script cannot take its stages with it when it is killed alone: they end by themselves.
        orphaned = case.script and number == signal.SIGKILL and not group
        deadline = time.monotonic() + (ORPHANS if orphaned else DYING)
        while (alive := _session(leader)) and time.monotonic() < deadline:
            time.sleep(0.05)
        problems += [f"survived: process {pid}" for pid in alive]
    finally:
        for pid in _session(leader):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()
    return process.exitcode or 0, problems


def _ending(case: Case, number: signal.Signals, code: int | None, errors: str) -> list[str]:
    """What was wrong with the exit code and with what was said; 0 means that it was finished before."""
    if code is None:
        return [f"does not end: {errors[-300:]}"]
    # Killed by the signal where it was not handled yet; 1 where a script's Python itself was still starting.
    if code not in (0, 130, -number, *([1] if case.script else [])):
        return [f"exit code {code}: {errors[-300:]}"]
    if code == 130 and ("Traceback" in errors or "Exception ignored" in errors):
        return [f"traceback: {errors[-800:]}"]
    return []


def _session(leader: int) -> list[int]:
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


def half_files(place: Path, whole: Path) -> list[str]:
    """Files and folders under their final names that are not complete; `whole`: where nothing was killed."""
    wrong = []
    for top in ("data/raw", "data/processed", "data/models", "submissions"):
        for path in sorted((place / top).rglob("*")):
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
        if path.suffix == ".csv" and path.name != ledger.NAME and not atomic.partial(path).exists():
            sidecar = Sidecar.read(path)  # (with a partial file, predict knows that it was killed)
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
    double = []
    for path in [place / "state/state.json", *place.glob("data/rehearsal/*/state.json")]:
        if path.is_file():
            counted = Counter(item["sha256"] for item in json.loads(path.read_bytes())["submissions"])
            double += [f"double submission: {sha}" for sha, count in counted.items() if count > 1]
    return double


def _unlike(stage: str, place: Path, whole: Path) -> list[str]:
    """What is missing where nothing was killed, of what is repeatable (`half_files` compares it), and in the ledger."""
    names = [path.relative_to(whole) for top in ("data", "submissions") for path in (whole / top).rglob("*")]
    wrong = [f"missing: {name}" for name in names if _repeatable(name) and not (place / name).exists()]
    entries = ledger.read(place / "submissions" / ledger.NAME)
    states = [entry.status for entry in ledger.current(entries, SLUG)]
    if stage == "predict" and len(ledger.predictions(entries, SLUG)) != 1:
        wrong.append("lost prediction: the ledger has none of this CSV")
    if stage in ("submit", "check") and states != [ledger.COMPLETE]:
        wrong.append(f"other result: the ledger says {states}")
    return wrong
