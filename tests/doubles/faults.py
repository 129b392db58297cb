"""Failures on demand, so that what the pipeline does about them can be tried without waiting for one.

    CALL:KIND[=ARG][*TIMES]     without *TIMES: every time

    ListDataFiles:status=500*2            the first two calls are answered 500
    ListSubmissions:status=429,retry=2    429 with Retry-After: 2 (retry=none: without one)
    CreateSubmission:accepted-then=500*1  it counts, but the answer is 500 (=cut: no answer; =URL: a redirect)
    ListSubmissions:hang=30               the answer comes 30 s late
    ListDataFiles:html                    a gateway's 502 page (html=200: a page with that status)
    DownloadDataFiles:loop                a redirect that leads to itself
    ListSubmissions:body=[7]              it counts, but the answer is [7], as JSON (body: nothing at all)
    CreateSubmission:fields={"ref": 7}    it counts, but these fields of the answer are replaced

These strike the files that a call leads to:

    DownloadDataFiles:cut=100000*1        the connection breaks after 100,000 bytes
    DownloadDataFiles:flip                one bit in the middle is wrong
"""

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.rehearsal.server import DOWNLOAD

REFUSALS = frozenset({"status", "html", "loop"})  # these come instead of what was asked for
ANSWERS = frozenset({"body", "fields", "hang", "accepted-then"})  # these replace or delay the answer
CONTENT = frozenset({"cut", "flip"})  # these damage a file

_SPEC = re.compile(r"(?P<call>\w+):(?P<kind>[a-z-]+)(?:=(?P<argument>[^*]+))?(?:\*(?P<times>\d+))?")


@dataclass
class Fault:
    """One failure."""

    call: str
    kind: str
    argument: str
    times: int | None  # how often it will still strike; None: every time

    def number(self) -> float:
        """The argument: a status, seconds or bytes, by kind."""
        return float(self.argument.partition(",")[0])

    @property
    def retry_after(self) -> str | None:
        """The header Retry-After, in seconds: of status 429 one second unless `,retry=` says otherwise."""
        status, _, retry = self.argument.partition(",retry=")
        return (retry if retry != "none" else None) if retry else "1" if status == "429" else None


def parse(spec: str) -> Fault:
    """Read `CALL:KIND[=ARG][*TIMES]`."""
    match = _SPEC.fullmatch(spec)
    if match is None or match["kind"] not in REFUSALS | ANSWERS | CONTENT:
        raise ValueError(f"not a fault: {spec}")
    call = DOWNLOAD if match["kind"] in CONTENT else match["call"]
    return Fault(call, match["kind"], match["argument"] or "", int(match["times"]) if match["times"] else None)


class Faults:
    """The faults that are still to happen.  Safe to ask from several threads."""

    def __init__(self, specs: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._faults = [parse(spec) for spec in specs]

    def take(self, call: str) -> Fault | None:
        """The first fault that strikes `call` now, used up once; None when all is well."""
        with self._lock:
            for fault in self._faults:
                if fault.call == call and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None
