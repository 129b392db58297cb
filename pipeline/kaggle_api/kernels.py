"""Kernels, through the genuine client in its child process: typed answers, and our errors for Kaggle's refusals.

Reading calls are repeated as pipeline.kaggle_api.client has it.  A push never is: each makes a new version and runs
it, so whoever lost the answer looks first whether it was taken (`find`).
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AccessDenied, NetworkError, PipelineError, UsageError, printable
from pipeline.kaggle_api import client, credentials
from pipeline.kaggle_api.client import DOWNLOAD_LIMIT, Kaggle

CHILD = Path(__file__).with_name("child_kernels.py")
WAITING = ("QUEUED", "NEW_SCRIPT", "RUNNING")  # statuses that change by themselves
COMPLETE = "COMPLETE"


@dataclass(frozen=True)
class Found:
    """Who the user is, and their kernel of the name that was asked for; no source: there is none."""

    user: str
    source: str | None
    version: int


@dataclass(frozen=True)
class Pushed:
    """Kaggle's answer to a push; `error` is a refusal, `invalid` names competitions that were left out."""

    version: int
    error: str
    invalid: list[str]


@dataclass(frozen=True)
class Session:
    """The run of a version: QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_..., and why it failed."""

    status: str
    message: str


@dataclass(frozen=True)
class Output:
    """The names of the files that came, and the log as Kaggle has it."""

    files: list[str]
    log: str


def find(kaggle: Kaggle, name: str) -> Found:
    """The user's kernel `name`, if there is one.

    Raises:
        AccessDenied: the credentials name no user.
    """
    found = client.typed(Found, kaggle.read(f"you/{name}", {"call": "find_kernel", "name": name}, CHILD))
    if not found.user:
        raise AccessDenied(f"the credentials name no user, to whom the kernel would belong: {credentials.CURE}")
    return found


def push(kaggle: Kaggle, folder: Path, ref: str, competition: str) -> Pushed:
    """Save what lies in `folder` as a new version of the kernel `ref` (USER/NAME) and have it run.

    Raises:
        UsageError: Kaggle gives the kernel no files of the competition.
        PipelineError: Kaggle refuses it otherwise: no accelerator left, too many kernels at once.
        NetworkError: also when it is unknown whether Kaggle took it.
    """
    request = {"call": "push_kernel", "folder": str(folder)}
    limit = max(kaggle.timeout, kaggle.upload_timeout)
    try:
        pushed = client.typed(Pushed, kaggle.call(ref, request, limit, script=CHILD))
    except NetworkError as error:
        if not error.unanswered:
            raise
        text = f"{error}; Kaggle may have taken the kernel all the same: run the same command again, it looks first"
        raise NetworkError(text, unanswered=True) from error
    if pushed.error:
        raise PipelineError(f"Kaggle did not take the kernel: {printable(pushed.error)}")
    if pushed.invalid:
        raise UsageError(
            f"Kaggle gives the kernel no files of {printable(', '.join(pushed.invalid))}: join the competition and "
            f"accept its rules at https://www.kaggle.com/competitions/{competition}/rules, then push it again with "
            "--force"
        )
    return pushed


def session(kaggle: Kaggle, ref: str, version: int) -> Session:
    """How the run of a version stands."""
    return client.typed(Session, kaggle.read(ref, {"call": "kernel_session", **_which(ref, version)}, CHILD))


def output(
    kaggle: Kaggle, ref: str, version: int, wanted: Mapping[str, int], folder: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> Output:  # fmt: skip
    """Bring those output files that are `wanted`, name -> most bytes, into `folder` under their names.

    `progress` is told the bytes there so far; the call ends when nothing more comes within the timeout.
    """
    places = {name: (str(folder / name), most) for name, most in wanted.items()}
    request = {"call": "kernel_output", **_which(ref, version), "wanted": places}
    watch = (folder, progress)
    return client.typed(Output, kaggle.retrying(lambda: kaggle.call(ref, request, DOWNLOAD_LIMIT, watch, CHILD)))


def log_lines(kaggle: Kaggle, ref: str, version: int) -> list[str]:
    """The lines of a version's log, which comes as plain text or as a JSON list of {stream_name, time, data}."""
    request = {"call": "kernel_output", **_which(ref, version), "wanted": {}}
    log = client.typed(Output, kaggle.read(ref, request, CHILD)).log
    with suppress(ValueError, TypeError, KeyError, RecursionError):  # then it is plain text
        log = "".join(str(event["data"]) for event in json.loads(log))
    return [printable(line) for line in log.splitlines() if line.strip()]


def _which(ref: str, version: int) -> dict[str, object]:
    user, _, name = ref.partition("/")
    return {"user": user, "name": name, "version": version}
