"""Failures on demand, so that what the pipeline does about them can be tried without waiting for one.

    CALL:KIND[=ARG][*TIMES]     without *TIMES: every time

    ListDataFiles:status=500*2            the first two calls are answered 500
    GetSubmission:status=429,retry=2      429 with Retry-After: 2 (retry=none: without one)
    CreateSubmission:accepted-then=500*1  it counts, but the answer is 500 (accepted-then=cut: no answer)
    ListSubmissions:hang=30               the answer comes 30 s late
    ListDataFiles:html                    a gateway's 502 page
    ListDataFiles:close                   the connection is closed without a word
    DownloadDataFiles:loop                a redirect that leads to itself
    ListSubmissions:body=[7]              it counts, but the answer is [7], as JSON (body: nothing at all)
    CreateSubmission:fields={"ref": 7}    it counts, but these fields of the answer are replaced
    DownloadDataFiles:cut=100000*1        the connection breaks after 100,000 bytes
    DownloadDataFiles:flip                one bit in the middle is wrong (flip=N: in byte N)
    DownloadDataFiles:truncate=1000       only the first 1,000 bytes, as if that were all (truncate: half)

On DownloadDataFile(s) and ListKernelSessionOutput, cut, flip and truncate strike the file that the answer leads to.
"""

import json
import re
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pipeline.errors import UsageError

API_CALLS = (
    "ListDataFiles", "DownloadDataFile", "DownloadDataFiles", "StartSubmissionUpload", "CreateSubmission",
    "GetSubmissionLimits", "ListSubmissions", "GetSubmission", "GetLeaderboard", "IntrospectToken",
    "GetKernel", "SaveKernel", "GetKernelSessionStatus", "ListKernelSessionOutput",
)  # fmt: skip
DOWNLOAD, UPLOAD = "Download", "Upload"  # the GET of a file and the PUT of a submission: plain HTTP, no call
CALLS = (*API_CALLS, DOWNLOAD, UPLOAD)

REFUSALS = frozenset({"status", "html", "close", "loop"})  # these come instead of what was asked for
TEXTS = frozenset({"body", "fields"})  # their argument is the JSON to answer with
ANSWERS = REFUSALS | TEXTS | {"hang", "accepted-then"}  # these replace or delay the answer
CONTENT = frozenset({"cut", "flip", "truncate"})  # these damage its body
KINDS = ANSWERS | CONTENT
NO_ARGUMENT = frozenset({"html", "close", "loop"})
OPTIONAL_ARGUMENT = frozenset({"flip", "truncate", "body"})

_SPEC = re.compile(r"(?P<call>\w+):(?P<kind>[a-z-]+)(?:=(?P<argument>[^*]+))?(?:\*(?P<times>\d{1,6}))?")
_EXAMPLE = "for example CreateSubmission:status=500*1"


@dataclass(frozen=True)
class Fault:
    """One failure.  `number` is its argument: a status, seconds or bytes, by kind."""

    call: str
    kind: str
    number: float | None = None  # None: flip's and truncate's default, or accepted-then=cut
    retry_after: float | None = None  # seconds; only of status
    times: int | None = None  # None: every time
    text: str = ""  # only of body and fields


def parse(spec: str) -> Fault:
    """Read `CALL:KIND[=ARG][*TIMES]`.

    Raises:
        UsageError: it is malformed; the message names what would do.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise UsageError(f"--fault {spec}: write CALL:KIND[=ARG][*TIMES], {_EXAMPLE}")
    call, kind, argument, times = match.group("call", "kind", "argument", "times")
    if call not in CALLS:
        raise UsageError(f"--fault {spec}: no call {call!r}; there are {', '.join(CALLS)}")
    if kind not in KINDS:
        raise UsageError(f"--fault {spec}: no kind {kind!r}; there are {', '.join(sorted(KINDS))}")
    count = None if times is None else int(times)
    if kind in TEXTS and argument is not None:
        return Fault(call, kind, times=count, text=_text(spec, kind, argument))
    number, retry_after = _argument(spec, kind, argument)
    return Fault(call, kind, number, retry_after, count)


def _text(spec: str, kind: str, argument: str) -> str:
    """The argument of `fields`, which must be a JSON object, or of `body`, which may be anything."""
    try:
        good = kind == "body" or isinstance(json.loads(argument), dict)
    except ValueError:
        good = False
    if not good:
        raise UsageError(f'--fault {spec}: {kind} wants a JSON object, for example fields={{"ref": 7}}')
    return argument


def _argument(spec: str, kind: str, argument: str | None) -> tuple[float | None, float | None]:
    """The argument's number, and Retry-After in seconds."""
    if kind in NO_ARGUMENT:
        if argument is not None:
            raise UsageError(f"--fault {spec}: {kind} takes no argument")
        return None, None
    if argument is None:
        if kind in OPTIONAL_ARGUMENT:
            return None, None
        raise UsageError(f"--fault {spec}: {kind} wants an argument, {_EXAMPLE}")
    if (kind, argument) == ("accepted-then", "cut"):
        return None, None
    first, comma, rest = argument.partition(",retry=")
    number = _number(spec, first)
    if kind in ("status", "accepted-then") and not (400 <= number <= 599 and number.is_integer()):
        raise UsageError(f"--fault {spec}: a status from 400 to 599, {_EXAMPLE}")
    if comma and kind != "status":
        raise UsageError(f"--fault {spec}: only status takes a retry, as in status=429,retry=2")
    if comma:
        return number, None if rest == "none" else _number(spec, rest)
    return number, 1.0 if kind == "status" and number == 429 else None


def _number(spec: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
        raise UsageError(f"--fault {spec}: {text!r} is no number")
    return float(text)


class Faults:
    """The faults that are still to happen.  Safe to ask from several threads."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._faults = list(faults)
        self._left = [fault.times for fault in self._faults]

    def take(self, calls: Collection[str], kinds: Collection[str]) -> Fault | None:
        """The first fault that strikes one of `calls` now, used up once; None when all is well."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                left = self._left[index]
                if fault.call in calls and fault.kind in kinds and left != 0:
                    self._left[index] = None if left is None else left - 1
                    return fault
        return None
