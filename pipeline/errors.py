"""One tree of errors, the exit codes, and what else a person is told.

The text of an error is one line for a person: what is wrong, in which file, and what to do about it.  A second line
begins with two spaces.
"""

from collections.abc import Callable

Log = Callable[[str], None]  # how parts and stages tell the user something: they get it as an argument


class PipelineError(Exception):
    """Base of all errors that a stage reports without a traceback: disk full, diverged training, ..."""

    exit_code, meaning = 1, "other"


class UsageError(PipelineError):
    """A flag, a value or a combination that makes no sense."""

    exit_code, meaning = 2, "usage"


class MissingInput(PipelineError):
    """An earlier stage's output is not there; the message names the command that makes it."""

    exit_code, meaning = 3, "an earlier stage's output is missing"


class BadData(PipelineError):
    """A corrupt, hostile or wrong file, or a submission that Kaggle would refuse."""

    exit_code, meaning = 4, "bad data"


class AccessDenied(PipelineError):
    """No credentials, refused credentials (401), or rules not accepted (403)."""

    exit_code, meaning = 5, "credentials or rules"


class NetworkError(PipelineError):
    """No network, a time limit ran out, or Kaggle is down (429, 5xx).

    `retry_after` is the number of seconds that Kaggle asked to wait, when it did (429 with Retry-After).
    `unanswered` says that Kaggle may still be at work on the request, and carry it out.
    """

    exit_code, meaning = 6, "network or Kaggle down"

    def __init__(self, message: str, *, retry_after: float | None = None, unanswered: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.unanswered = unanswered


class SubmissionLimit(PipelineError):
    """The competition allows no further submission today."""

    exit_code, meaning = 7, "daily limit"


class ScoringError(PipelineError):
    """Kaggle accepted the submission and then failed to score it."""

    exit_code, meaning = 8, "scored ERROR"


INTERRUPTED = 130  # Ctrl-C or SIGTERM: KeyboardInterrupt
_ERRORS = (PipelineError, UsageError, MissingInput, BadData, AccessDenied, NetworkError, SubmissionLimit, ScoringError)
EXIT_CODES = {0: "fine", **{kind.exit_code: kind.meaning for kind in _ERRORS}, INTERRUPTED: "interrupted"}


def printable(text: object, limit: int = 200) -> str:
    """Text that came from a file or from Kaggle, made safe for a terminal.

    Control characters (escape sequences, newlines) become `\\x1b`-like escapes, and what is longer than
    `limit` characters is cut, so that one line stays one line.
    """
    raw = str(text)
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def first_line(error: Exception) -> str:
    """An error's first line, or its class's name if it has no text; fit for a terminal."""
    return printable(str(error).strip().partition("\n")[0] or type(error).__name__, 120)
