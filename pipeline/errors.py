"""One tree of errors, and the exit codes.

The text of an error is one line: what is wrong, in which file, and what to do about it.  A second line begins with two
spaces.
"""

from collections.abc import Callable

Log = Callable[[str], None]  # prints a message; passed to parts and stages


class PipelineError(Exception):
    """Base of all errors reported without a traceback: disk full, diverged training, ..."""

    exit_code, meaning = 1, "other error"


class DeviceFailed(PipelineError):
    """The device vanished, hung, or its driver lost it: this process cannot use it again."""


class UsageError(PipelineError):
    """An invalid option, value or combination."""

    exit_code, meaning = 2, "usage"


class MissingInput(PipelineError):
    """An earlier stage's output is missing; the message has the command that makes it."""

    exit_code, meaning = 3, "an earlier stage's output is missing"


class BadData(PipelineError):
    """A corrupt, hostile or wrong file, or a submission that Kaggle would refuse."""

    exit_code, meaning = 4, "bad data"


class AccessDenied(PipelineError):
    """No credentials, refused credentials (401), or rules not accepted (403)."""

    exit_code, meaning = 5, "credentials or rules"


class NetworkError(PipelineError):
    """No network, a time limit, or Kaggle is down (429, 5xx).

    `retry_after`: Kaggle's Retry-After, in seconds, at most 300.  `unanswered`: Kaggle may still carry out the request.
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
    """Kaggle accepted the submission and could not score it."""

    exit_code, meaning = 8, "Kaggle could not score it"


INTERRUPTED = 130  # Ctrl-C or SIGTERM: KeyboardInterrupt
_ERRORS = (PipelineError, UsageError, MissingInput, BadData, AccessDenied, NetworkError, SubmissionLimit, ScoringError)
EXIT_CODES = {0: "success", **{kind.exit_code: kind.meaning for kind in _ERRORS}, INTERRUPTED: "interrupted"}


def printable(text: object, limit: int = 200) -> str:
    """Text from a file or from Kaggle, safe for a terminal.

    Control characters become escapes such as `\\x1b`, and text over `limit` characters is cut.
    """
    raw = str(text)
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def first_line(error: Exception) -> str:
    """An error's first line, or its class's name, safe for a terminal."""
    return printable(str(error).strip().partition("\n")[0] or type(error).__name__, 120)
