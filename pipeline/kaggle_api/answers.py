"""What the child process answers, checked: values of the right types, or one of our errors that names the cure.

Kaggle's client takes over whatever JSON it is given, so a field may hold anything.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import (
    AccessDenied,
    BadData,
    NetworkError,
    PipelineError,
    SubmissionLimit,
    UsageError,
    printable,
)
from pipeline.kaggle_api import credentials
from pipeline.store.fields import require_types

T = TypeVar("T")

LARGEST = 2**63 - 1  # of Kaggle's numbers; none is negative


def typed(kind: type[T], values: Any) -> T:
    """The dataclass `kind` of these fields.

    Raises:
        NetworkError: a field has another type, or is a number that cannot be meant.
    """
    try:
        found = kind(**values)
        require_types(found)
    except TypeError as error:
        raise _nonsense(f"{kind.__name__}: {error}") from None
    for name, value in vars(found).items():
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise _nonsense(f"{kind.__name__}.{name} is {value!r}")
    return found


def typed_list(kind: type[T], items: Any) -> list[T]:
    """A list of them."""
    if not isinstance(items, list):
        raise _nonsense(f"{items!r} is no list")
    return [typed(kind, item) for item in items]


def ref(file: Path, value: Mapping[str, Any]) -> int:
    """The ref in the answer to the submission of `file`.

    Raises:
        NetworkError: there is none; `unanswered` unless Kaggle was not even asked to take the file.
    """
    if not value["uploaded"]:
        raise NetworkError(f"{file} could not be uploaded to Kaggle: check the network and run again")
    found = value["ref"]
    if type(found) is not int or not 0 < found <= LARGEST:
        what = printable(f"{found!r}, {value['message']}")
        raise NetworkError(f"Kaggle named no ref for the submission ({what}): run again", unanswered=True)
    return found


def refusal(subject: str, credential: str, reply: Mapping[str, Any]) -> PipelineError:
    """Our error for what the child reports.

    `subject` is a competition's slug or a kernel's USER/NAME, `credential` says where the credentials come from.
    """
    kind, message = reply["kind"], printable(reply["message"])
    if kind == "http":
        return _refused(subject, credential, reply, message)
    if kind == "credentials":
        return AccessDenied(f"Kaggle accepts none of the credentials found: {credentials.CURE}")
    if kind == "install":
        return PipelineError(f"the kaggle client does not load ({message}): pip install -r requirements.txt")
    if kind == "disk":
        return PipelineError(f"this system refused the kaggle client ({message}): free space, or check permissions")
    if kind == "storage":  # its links are signed and grow old: a new one may do
        text = f"the link that Kaggle gave does not lead to the file ({reply['status']}, {message})"
        return NetworkError(f"{text}: run again, for a new link", retry_after=_seconds(reply))
    if kind == "other":
        return _nonsense(message, unanswered=reply["creating"])
    text = f"cannot reach Kaggle ({message}): check the network and run again"
    return NetworkError(text, unanswered=reply["creating"])


def _refused(subject: str, credential: str, reply: Mapping[str, Any], message: str) -> PipelineError:
    """Kaggle itself refused, with a status."""
    status = int(reply["status"])
    if status == 401:
        return AccessDenied(f"Kaggle refused the credentials in {credential} (401): {credentials.CURE}")
    if status == 403:
        return AccessDenied(f"Kaggle refused (403, {message}): {_permission(subject)}")
    if status == 404:
        return UsageError(f"Kaggle knows no such thing (404, {message}): {_spelling(subject)}")
    if status == 400 and re.search("submission.*(limit|allowance)|(limit|daily).*submission", message, re.I):
        return SubmissionLimit(f"Kaggle refused the submission ({message}): the limit resets at 00:00 UTC")
    if status == 429 or status >= 500:
        text = f"Kaggle is busy or down ({status}, {message}): try again later"
        # Whoever answered, perhaps a gateway in Kaggle's place: the request may be carried out all the same.
        perhaps_at_work = status >= 500 and reply["creating"]
        return NetworkError(text, retry_after=_seconds(reply), unanswered=perhaps_at_work)
    return BadData(f"Kaggle refused the request ({status}, {message})")


def _permission(subject: str) -> str:
    if "/" in subject:
        page = f"https://www.kaggle.com/code/{subject}"
        return f"is the kernel at {page}, and your phone verified at https://www.kaggle.com/settings, as GPUs need it?"
    return f"join the competition and accept its rules at https://www.kaggle.com/competitions/{subject}/rules"


def _spelling(subject: str) -> str:
    if "/" in subject:
        return f"is the kernel still at https://www.kaggle.com/code/{subject}?"
    return f"is --competition {subject} spelled right?"


def _nonsense(what: str, *, unanswered: bool = False) -> NetworkError:
    text = f"Kaggle's answer makes no sense to its client ({printable(what)})"
    return NetworkError(f"{text}: try again later; if it stays so, pip install -U kaggle", unanswered=unanswered)


def _seconds(reply: Mapping[str, Any]) -> float | None:
    try:
        return max(0.0, float(reply.get("retry_after") or ""))
    except ValueError:
        return None
