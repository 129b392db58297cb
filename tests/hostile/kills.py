"""Signals at random moments: a stage is killed, what is left is looked at, and the same command run again."""

import importlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from pipeline.store import ledger
from tests.hostile import leftovers
from tests.hostile.leftovers import RUN
from tests.hostile.surroundings import copy_project
from tests.support import ROOT, SLUG, clean_environment, here, serve, write_download

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DYING = 5.0  # seconds that a child of a killed process may need to notice
ORPHANS = 120.0  # seconds that the stages of a killed run_all.sh may need to end
ENDING = 60.0  # seconds to end after SIGTERM and SIGINT
TIMEOUT = 300.0  # seconds

# --- what is killed -----------------------------------------------------------------------------------------


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
    """Where each case begins, where it ends when nothing disturbs it, and what it costs; made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._empty = folder, folder / "empty"
        self._seconds: dict[str, float] = {}
        source = write_download(folder / "source")
        copy_project(self._empty)
        (self._empty / "source").symlink_to(source)  # the mock server remembers whose files it served
        (self._empty / "labels.csv").write_text("ID,Labels\n" + "".join(f"{100 + k},{k % 10}\n" for k in range(30)))
        shutil.make_archive(str(self._empty / SLUG), "zip", source)

    def begin(self, name: str, place: Path) -> Path:
        """Make `place` one in which the case can begin."""
        before = CASES[name].after
        shutil.copytree(self.end(before) if before else self._empty, place, symlinks=True)
        return place

    def end(self, name: str) -> Path:
        """The place in which the case ended undisturbed."""
        place = self._folder / "ends" / name
        if not place.exists():
            self.begin(name, place)
            with _environment(CASES[name], place) as environ:
                before = sum(os.times()[:4])
                done = _finish(CASES[name], place, environ)
                self._seconds[name] = sum(os.times()[:4]) - before
            assert done.returncode == 0, done.stderr
        return place

    def seconds(self, name: str) -> float:
        """The processor time of the undisturbed case: unlike the clock's, a busy machine hardly changes it."""
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


def _start(command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> ForkServerProcess:
    """`python -m COMMAND`, or a script; its process is forked from one that has imported PyTorch and the stages."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(case.arguments[0] for case in CASES.values() if not case.script)])
    process = context.Process(target=_become, args=(command, folder, dict(environ), log))
    process.start()
    return process


def _become(command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> None:
    """In the fork."""
    os.setsid()
    for number, name in enumerate((os.devnull, os.devnull, str(log))):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(folder)
    module, *options = command
    if module.endswith(".sh"):
        os.execve(module, [*command], environ)
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    sys.exit(importlib.import_module(module).main(options))


# --- a kill -------------------------------------------------------------------------------------------------


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
    book = folder / "submissions" / ledger.NAME
    before = book.read_bytes() if book.is_file() else b""
    with _environment(case, folder) as environ:
        code, problems = _kill(case, number, group, moment, folder, environ)
        problems += leftovers.half_files(folder) + leftovers.lost_lines(before, book)
        _let_minutes_pass(book, before)
        again = _finish(case, folder, environ)
    if again.returncode:
        problems.append(f"run again: {again.returncode}, {again.stderr[-300:]}")
    else:
        problems += leftovers.unlike(name, folder, template.end(name))
    problems += leftovers.half_files(folder) + leftovers.lost_lines(before, book)
    problems += leftovers.held_locks(folder) + leftovers.double_submissions(folder)
    shutil.rmtree(folder)
    whom = "the group" if group else "the process"
    what = f"{name}, {number.name} to {whom} after {moment:.2f} s of processor time, code {code}"
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
    log = folder / ".stderr"
    log.touch()
    process = _start(case.arguments, folder, environ, log)
    leader = process.pid or 0
    try:
        while process.exitcode is None and not _has_begun(leader, case):
            time.sleep(0.001)
        begun = _spent(leader)
        while process.exitcode is None and _spent(leader) - begun < moment:
            time.sleep(0.001)
        handled = process.exitcode is None and _catches_sigterm(leader)
        if process.exitcode is None:
            with suppress(ProcessLookupError):  # so early that it does not lead its group yet
                (os.killpg if group else os.kill)(leader, number)
        process.join(ENDING)
        problems = _ending(number, handled, process.exitcode, log.read_text(errors="replace"))
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


def _ending(number: signal.Signals, handled: bool, code: int | None, errors: str) -> list[str]:
    """What was wrong with the exit code and with what was said; 0 means that it was finished before."""
    if code is None:
        return [f"does not end: {errors[-300:]}"]
    # -SIGINT is 130 to a shell.  CPython ends so if the interrupt passed through an exec("..."), as in an import of
    # PyTorch, also where it was caught in the end; and with 1 where Python itself was still starting.
    fine = (0, 130, -signal.SIGINT) if handled and number != signal.SIGKILL else (0, 1, 130, -number)
    if code not in fine:
        return [f"exit code {code}: {errors[-300:]}"]
    if code == 130 and ("Traceback" in errors or "Exception ignored" in errors):
        return [f"traceback: {errors[-800:]}"]
    return []


def _has_begun(pid: int, case: Case) -> bool:
    """Whether the process has become the stage, which catches SIGTERM, or the script."""
    if not case.script:
        return _catches_sigterm(pid)
    with suppress(OSError):
        return case.arguments[0].encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _catches_sigterm(pid: int) -> bool:
    """Whether the process has installed its handlers: Python itself leaves SIGTERM alone."""
    with suppress(OSError):
        caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), flags=re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the third, its state, on; empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _spent(pid: int) -> float:
    """Seconds of processor time of a process and its descendants, those that ended among them."""
    fields, children = _stat(pid), Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(OSError):
        own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        return own + sum(_spent(int(child)) for child in children.read_text().split())
    return 0.0


def _session(leader: int) -> list[int]:
    """The processes of the session that `leader` began, which their children stay in; without those that ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(path.name)
        if fields and int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(path.name))
    return found
