"""One tree of errors, and what else a person is told.

Each error has the exit code that every stage ends with when it is raised:

    0    fine
    1    PipelineError     anything without a code of its own: disk full, diverged training, a bug
    2    UsageError        a flag, a value or a combination that makes no sense
    3    MissingInput      an earlier stage's output is not there; the message names the command that makes it
    4    BadData           a corrupt, hostile or wrong file, or a submission that Kaggle would refuse
    5    AccessDenied      no credentials, credentials refused (401), or rules not accepted (403)
    6    NetworkError      no network, a time limit ran out, or Kaggle is down (429, 5xx)
    7    SubmissionLimit   no submission is left today
    8    ScoringError      Kaggle took the submission and could not score it
    130  KeyboardInterrupt Ctrl-C or SIGTERM

The text of an error is one line for a person: what is wrong, in which file, and what to do about it.
"""

from collections.abc import Callable

Log = Callable[[str], None]  # how parts and stages tell the user something: they get it as an argument


class PipelineError(Exception):
    """Base of all errors that a stage reports without a traceback."""

    exit_code = 1


class UsageError(PipelineError):
    """A flag, a value or a combination that makes no sense."""

    exit_code = 2


class MissingInput(PipelineError):
    """An earlier stage's output is not there."""

    exit_code = 3


class BadData(PipelineError):
    """A corrupt, hostile or wrong file, or an invalid submission."""

    exit_code = 4


class AccessDenied(PipelineError):
    """No credentials, refused credentials (401), or rules not accepted (403)."""

    exit_code = 5


class NetworkError(PipelineError):
    """No network, a time limit ran out, or Kaggle is down.

    `retry_after` is the number of seconds that Kaggle asked to wait, when it did (429 with Retry-After).
    `unanswered` says that Kaggle may still be at work on the request, and carry it out.
    """

    exit_code = 6

    def __init__(self, message: str, *, retry_after: float | None = None, unanswered: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.unanswered = unanswered


class SubmissionLimit(PipelineError):
    """The competition allows no further submission today."""

    exit_code = 7


class ScoringError(PipelineError):
    """Kaggle accepted the submission and then failed to score it."""

    exit_code = 8


INTERRUPTED = 130


def printable(text: object, limit: int = 200) -> str:
    """Text that came from a file or from Kaggle, made safe for a terminal.

    Control characters (escape sequences, newlines) become `\\x1b`-like escapes, and what is longer than
    `limit` characters is cut, so that one line stays one line.
    """
    raw = str(text)
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
