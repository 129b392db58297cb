"""Signals at random moments: a stage is killed, what is left is looked at, and the same command run again."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch

from pipeline.store import ledger
from tests.hostile.kill_cases import CASES, Case, Template, command, kaggle_for
from tests.hostile.leftovers import Fault, double_submissions, half_files, held_locks, lost_lines, unlike
from tests.support import here

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DYING = 5.0  # seconds that a child of a killed process may need to notice
ORPHANS = 120.0  # seconds that the stages of a killed run_all.sh may need to end
ENDING = 60.0  # seconds to end after SIGTERM and SIGINT
TIMEOUT = 300.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """One kill, and what was wrong after it."""

    stage: str
    number: signal.Signals
    group: bool  # sent to the whole process group
    moment: float  # seconds of processor time after the start
    code: int  # with which the process ended
    finished: bool  # the command that was run again ended with 0
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        whom = "the group" if self.group else "the process"
        faults = "; ".join(f"{fault.kind}: {fault.text}" for fault in self.faults) or "all well"
        return f"{self.stage}, {self.number.name} to {whom} after {self.moment:.2f} s, code {self.code}: {faults}"


@dataclass
class Counts:
    """What many kills came to."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  # by stage and signal
    too_late: int = 0  # the command had ended before
    reruns_finished: int = 0
    faults: Counter[str] = field(default_factory=Counter)  # by kind
    bad: list[str] = field(default_factory=list)  # the outcomes with faults, for people

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.kills[outcome.stage, outcome.number.name] += 1
        self.too_late += outcome.code == 0
        self.reruns_finished += outcome.finished
        self.faults.update(fault.kind for fault in outcome.faults)
        if outcome.faults:
            self.bad.append(str(outcome))


def soak(count: int, seed: int, folder: Path) -> Counts:
    """Kill `count` times, over all stages in turn; run_all.sh takes long, so it is every twentieth."""
    rng = random.Random(seed)
    template = Template(folder / "template")
    stages = [case.name for case in CASES if not case.script]
    counts = Counts()
    for k in range(count):
        stage = "run_all" if k % 20 == 19 else stages[k % len(stages)]
        counts.add(kill_once(rng, stage, template, folder / f"kill-{k}"))
    return counts


def kill_once(rng: random.Random, stage: str, template: Template, folder: Path) -> Outcome:
    """Kill `stage` at a random moment in a fresh `folder`, look, run it again and compare; removes the folder."""
    case, number = template.case(stage), rng.choice(SIGNALS)
    group = number != signal.SIGTERM and rng.random() < 0.5  # Ctrl-C in a terminal goes to all of the group
    moment = max(rng.random(), rng.random()) * template.seconds(stage)  # the end, where it writes, more often
    template.begin(stage, folder)
    book = folder / "submissions/ledger.csv"
    before = book.read_bytes() if book.is_file() else b""
    with kaggle_for(case, folder) as environ:
        code, faults = _kill(case, number, group, moment, folder, environ)
        faults += half_files(folder) + lost_lines(before, folder)
        _let_minutes_pass(folder / "submissions" / ledger.NAME, before)
        again = _again(case, folder, environ)
    if again.returncode:
        blocked = "another run is at work" in again.stderr
        faults.append(Fault("blocked lock" if blocked else "rerun", f"{again.returncode}, {again.stderr[-300:]}"))
    faults += half_files(folder) + lost_lines(before, folder) + held_locks(folder) + double_submissions(folder)
    if not again.returncode:
        faults += unlike(stage, folder, template.end(stage))
    shutil.rmtree(folder)
    return Outcome(stage, number, group, moment, code, not again.returncode, tuple(faults))


def _let_minutes_pass(book: Path, before: bytes) -> None:
    """Date the ledger's new lines back: whoever comes back at once may be made to wait for what was just sent."""
    if book.is_file() and (new := book.read_bytes()[len(before) :]):
        earlier = (datetime.now(UTC) - timedelta(minutes=10)).isoformat(timespec="seconds")
        dated = re.sub(rb"^[0-9T:+-]{25}(?=,)", earlier.encode(), new, flags=re.MULTILINE)
        book.write_bytes(before + dated)


def _again(case: Case, folder: Path, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """The command once more: in this process, which need not import PyTorch again."""
    if case.script:
        return subprocess.run(
            command(case), cwd=folder, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    _, module, *options = case.arguments
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in `environ`: with more of them, weights would differ in their last bits
    try:
        return here(module.removeprefix("pipeline."), *options, cwd=folder, environ=environ)
    finally:
        torch.set_num_threads(threads)


def _kill(
    case: Case, number: signal.Signals, group: bool, moment: float, folder: Path, environ: Mapping[str, str]
) -> tuple[int, list[Fault]]:
    """Start the command, send the signal, wait; its exit code, and what was wrong with how it ended."""
    log = folder / ".stderr"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command(case), cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=errors, start_new_session=True,
        )  # fmt: skip
    try:
        while process.poll() is None and spent(process.pid) < moment:
            time.sleep(0.003)
        handled = False
        if process.poll() is None:
            handled = catches_sigterm(process.pid)
            (os.killpg if group else os.kill)(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING)
        faults = _ending(number, handled, process.poll(), log.read_text(errors="replace"))
        # A script cannot take its stages with it when it is killed alone: they end by themselves.
        orphaned = case.script and number == signal.SIGKILL and not group
        if alive := _survivors(process.pid, ORPHANS if orphaned else DYING):
            faults.append(Fault("survivor", " ".join(alive)))
    finally:
        for pid in session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    return process.returncode, faults


def _ending(number: signal.Signals, handled: bool, code: int | None, errors: str) -> list[Fault]:
    """What was wrong with the exit code and with what was said; 0 means that it was finished before."""
    if code is None:
        return [Fault("does not end", errors[-300:])]
    faults = []
    # -SIGINT is 130 to a shell.  CPython ends so if the interrupt passed through an exec("..."), as in an import of
    # PyTorch, also where it was caught in the end; and with 1 where Python itself was still starting.
    fine = (0, 130, -signal.SIGINT) if handled and number != signal.SIGKILL else (0, 1, 130, -number)
    if code not in fine:
        faults.append(Fault("exit code", f"{code}: {errors[-300:]}"))
    if code == 130 and ("Traceback" in errors or "Exception ignored" in errors):
        faults.append(Fault("traceback", errors[-800:]))
    return faults


def catches_sigterm(pid: int) -> bool:
    """Whether the process has installed its handlers: Python itself leaves SIGTERM alone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def spent(pid: int) -> float:
    """Seconds of processor time of a process and its descendants, those that ended among them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended meanwhile
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(spent(int(child)) for child in children)


def session(leader: int) -> list[int]:
    """The processes of the session that `leader` began, which their children stay in; without those that ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def _survivors(leader: int, seconds: float) -> list[str]:
    """Who of the session is still alive after `seconds`."""
    end = time.monotonic() + seconds
    while (alive := session(leader)) and time.monotonic() < end:
        time.sleep(0.05)
    return [_command_line(pid) for pid in alive]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return f"process {pid}"
