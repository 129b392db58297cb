"""The kaggle client's child processes, forked from one that has imported beforehand what the client imports.

For tests that call the client often: an import takes it ten times as long as a call.  What runs is the same child.py
with the official client, in a process and an environment of its own; only its interpreter is not a fresh one.
"""

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Self
from unittest import mock

from pipeline.kaggle_api import client

FORKING = multiprocessing.get_context("forkserver")
# Not `kaggle` itself: it looks at the environment, and authenticates, when it is imported.
FORKING.set_forkserver_preload([
    "tests.forked_client", "bleach", "dateutil.parser", "dotenv", "google.protobuf.field_mask_pb2", "kagglesdk",
    "kagglesdk.kaggle_oauth", "kagglesdk.competitions.services.competition_api_service", "packaging.version", "pprint",
    "requests", "six", "slugify", "tarfile", "tqdm",
])  # fmt: skip


class Forked:
    """As much of subprocess.Popen as the client uses."""

    def __init__(self, command: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], **_: object) -> None:
        reading, writing = os.pipe()
        files = DupFd(reading), DupFd(stdout.fileno())
        self._process = FORKING.Process(target=_run, args=(command[-1], str(Path.cwd()), dict(env), *files))
        self._process.start()
        os.close(reading)
        self.stdin = os.fdopen(writing, "wb", buffering=0)
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> None:
        """Return after the child's end; raise TimeoutExpired if that takes more than `timeout` seconds."""
        self._process.join(timeout)
        self.returncode = self._process.exitcode
        if self.returncode is None:
            raise subprocess.TimeoutExpired("kaggle", timeout or 0)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.wait()


@contextmanager
def forked_client() -> Iterator[None]:
    """Within the block, the client's calls from this process are forked."""
    with contextlib.chdir(Path(__file__).parents[1]):  # where the server finds this module
        forkserver.ensure_running()
    known: dict[str, Any] = {name: getattr(subprocess, name) for name in ("PIPE", "DEVNULL", "TimeoutExpired")}
    with mock.patch.object(client, "subprocess", SimpleNamespace(Popen=Forked, **known)):
        yield


def _run(script: str, folder: str, environ: Mapping[str, str], reading: Any, writing: Any) -> None:
    """In the fork: become the script."""
    for number, file in enumerate((reading.detach(), writing.detach(), os.open(os.devnull, os.O_WRONLY))):
        os.dup2(file, number)
        os.close(file)  # the parent's end alone keeps a pipe open
    sys.stdin = os.fdopen(0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
