"""Waiting for a kernel's end, and why it failed."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.console import duration
from pipeline.errors import Log, NetworkError, PipelineError, printable
from pipeline.kaggle_api import kernels
from pipeline.kaggle_api.client import Kaggle
from pipeline.kernels.order import AGAIN, Note

LOG_LINES = 15  # of a failed kernel's log


@dataclass(frozen=True)
class Clock:
    """Time, as an argument: how long to wait for the kernel's end, how often to look, and what a second is."""

    deadline: float = 43_200.0  # seconds; no kernel may run longer than twelve hours
    poll: float = 15.0  # seconds between two looks
    reminder: float = 600.0  # seconds after which it is said again that the kernel runs
    patience: float = 600.0  # seconds without an answer of Kaggle's: hours of waiting outlast a bad connection
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic


def wait_for(note: Note, kaggle: Kaggle, log: Log, clock: Clock, later: str) -> None:
    """Look until the kernel is complete; `later` is the command that goes on waiting.

    Raises:
        PipelineError: it failed, or was cancelled.
        NetworkError: it did not end in time, or Kaggle does not answer for long.
    """
    start = told_at = seen_at = clock.monotonic()
    told = ""
    while True:
        try:
            session = kernels.session(kaggle, note.ref, note.version)
        except NetworkError as error:
            if clock.monotonic() - seen_at >= min(clock.patience, clock.deadline):
                raise
            log(f"kernel: {error}; looking again in {clock.poll:.0f} s")
            clock.sleep(clock.poll)
            continue
        seen_at = now = clock.monotonic()
        if session.status != told or now - told_at >= clock.reminder:
            log(f"kernel: {note.ref} is {_words(session.status)}, after {duration(now - start)}")
            told, told_at = session.status, now
        if session.status == kernels.COMPLETE:
            return
        if session.status not in kernels.WAITING:
            raise _failed(note, session, kaggle, log)
        if now - start >= clock.deadline:
            raise NetworkError(f"{note.ref} did not end within {clock.deadline:.0f} s: `{later}` goes on waiting")
        clock.sleep(clock.poll)


def _failed(note: Note, session: kernels.Session, kaggle: Kaggle, log: Log) -> PipelineError:
    """Say the end of the log; the error."""
    try:
        lines = kernels.log_lines(kaggle, note.ref, note.version)
    except PipelineError as error:
        lines = [f"no log: {error}"]
    for line in lines[-LOG_LINES:]:
        log(f"| {line}")
    why = f" ({printable(session.message)})" if session.message else ""
    return PipelineError(f"the kernel is {_words(session.status)}{why}, see {note.url}; mend it, then {AGAIN}")


def _words(status: str) -> str:
    """CANCEL_REQUESTED -> cancel requested."""
    return printable(status.lower().replace("_", " "))
