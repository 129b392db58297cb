"""The kaggle client's child processes, forked from one that has imported beforehand what the client imports.

For tests that call the client often: an import takes it ten times as long as a call.  What runs is the same child.py
with the genuine client, in a process and an environment of its own; only its interpreter is not a fresh one.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn, Self
from unittest import mock

from pipeline.kaggle_api import client

ROOT = Path(__file__).resolve().parents[1]
# Not `kaggle` itself: it looks at the environment, and authenticates, when it is imported.
IMPORTED = ("bleach", "dateutil.parser", "google.protobuf.field_mask_pb2", "kagglesdk", "kagglesdk.kaggle_oauth",
            "kagglesdk.competitions.services.competition_api_service", "requests", "tqdm")  # fmt: skip


class Forked:
    """As much of subprocess.Popen as the client uses."""

    def __init__(
        self, server: socket.socket, turn: threading.Lock, script: str, env: Mapping[str, str], out: int
    ) -> None:
        reading, writing = os.pipe()
        self._ended, alive = os.pipe()  # closed at its other end by the child's end
        with turn:
            socket.send_fds(server, [json.dumps([script, str(Path.cwd()), dict(env)]).encode()], [reading, out, alive])
            self._pid = int.from_bytes(server.recv(8), "big")
        os.close(reading)
        os.close(alive)
        self.stdin = os.fdopen(writing, "wb")
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return after the child's end; raise TimeoutExpired if that takes more than `timeout` seconds."""
        if not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("kaggle", timeout or 0)
        self.returncode = 0
        return 0

    def kill(self) -> None:
        """End it, if it has not ended."""
        if not select.select([self._ended], [], [], 0)[0]:
            os.kill(self._pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.wait()
        os.close(self._ended)


@contextmanager
def forked_client() -> Iterator[None]:
    """Within the block, the client's calls from this process are forked."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.forked_client", str(theirs.fileno())]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    turn = threading.Lock()

    def popen(command: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], **_: object) -> Forked:
        return Forked(ours, turn, command[-1], env, stdout.fileno())

    known: dict[str, Any] = {name: getattr(subprocess, name) for name in ("PIPE", "DEVNULL", "TimeoutExpired")}
    with subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()]), ours:
        theirs.close()
        with mock.patch.object(client, "subprocess", SimpleNamespace(Popen=popen, **known)):
            yield


# --- in the child interpreter ---


def _serve(channel: socket.socket) -> None:
    """Fork for each request, until the other end is closed."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a fork's collector need not touch, and so copy, what is there already
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a fork ended
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            return
        if (pid := os.fork()) == 0:
            channel.close()
            _run(*json.loads(message), files=files)
        channel.sendall(pid.to_bytes(8, "big"))
        for file in files:
            os.close(file)


def _run(script: str, folder: str, environ: Mapping[str, str], *, files: Sequence[int]) -> NoReturn:
    """In the fork: become the script."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate((*files[:2], os.open(os.devnull, os.O_WRONLY))):
            os.dup2(file, number)
        os.close(files[0])
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = [script]
        runpy.run_path(script, run_name="__main__")
    finally:
        os._exit(1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
