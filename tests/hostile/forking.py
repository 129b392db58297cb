"""Runs stages many times over without paying for the start of an interpreter each time.

A child interpreter imports the stages once and forks for each run.  It also starts fresh interpreters, when
asked: being small, it adds nothing to what they measure (a process that becomes another program keeps the peak
memory of the one that it was).
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("preprocess", "download")
ADDRESSES = 4 * 1024**3  # bytes that a run can have, so that a bomb that goes off leaves the machine alone
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int  # negative: the signal that killed it
    cpu: float  # seconds, user and system
    peak: int  # bytes of memory
    stdout: str
    stderr: str


class Stages:
    """The way to the child interpreter; see `stages`."""

    def __init__(self, process: "subprocess.Popen[str]", scratch: Path) -> None:
        self._process = process
        self._scratch = scratch

    def run(self, stage: str, *arguments: object, cwd: Path, fresh: bool = False, limit: int = 60) -> Outcome:
        """`python -m pipeline.STAGE ARGUMENTS` in the folder `cwd`: in a fork, or in a `fresh` interpreter.

        It is killed after `limit` seconds.
        """
        files = [self._scratch / "stdout", self._scratch / "stderr"]
        request = [stage, list(map(str, arguments)), str(cwd), list(map(str, files)), fresh, limit]
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code, cpu, peak = json.loads(self._process.stdout.readline())
        stdout, stderr = (file.read_bytes().decode(errors="backslashreplace") for file in files)
        return Outcome(code, cpu, peak * _UNIT, stdout, stderr)


@contextmanager
def stages() -> Iterator[Stages]:
    """Start the child interpreter; it ends with the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAGGLE", "PIPELINE", "PYTHON"))}
    with tempfile.TemporaryDirectory(prefix="forking-") as scratch:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # a fork takes no threads along
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.forking"],
            cwd=ROOT,
            env={**kept, **threads, "HOME": scratch, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            yield Stages(process, Path(scratch))


# --- in the child interpreter ---


def _serve() -> None:
    """Answer each request, a line of JSON, with exit code, seconds and peak memory."""
    for stage in STAGES:
        importlib.import_module(f"pipeline.{stage}")
    gc.freeze()  # a fork's collector need not touch, and so copy, what is there already
    for line in sys.stdin:
        stage, arguments, cwd, files, fresh, limit = json.loads(line)
        if (pid := os.fork()) == 0:
            signal.alarm(limit)
            with contextlib.suppress(OSError, ValueError):  # not every system has this limit
                resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
            _run(stage, arguments, cwd, files, fresh)
        _, status, usage = os.wait4(pid, 0)
        result = [os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
        print(json.dumps(result), flush=True)


def _run(stage: str, arguments: list[str], cwd: str, files: Sequence[str], fresh: bool) -> NoReturn:
    """In the fork: become the stage."""
    code = 1
    try:
        os.chdir(cwd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", f"pipeline.{stage}", *arguments])
        sys.path.insert(0, cwd)  # as `python -m` does
        code = importlib.import_module(f"pipeline.{stage}").main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
