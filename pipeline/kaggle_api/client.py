"""Kaggle, through the genuine client in a child process: wall-clock limits, typed answers, typed errors.

What the client lacks (see child.py) is added here: every call ends within its limit, its environment holds only what
it needs, and each failure is one of our errors.  What follows a failure depends on what was asked for:

    reading     a NetworkError (no network, time limit, 429, 5xx) is repeated, waiting as Retry-After says or longer
                each time; a download goes on where it stopped
    creating    a submission or a kernel is asked for once.  After a 5xx or 408, a time limit, a lost connection or a
                senseless answer the error is `unanswered`: Kaggle may carry it out all the same, and whoever asked has
                to look (pipeline.submit)
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from pipeline import errors
from pipeline.errors import AccessDenied, Log, NetworkError, PipelineError, UsageError, printable
from pipeline.kaggle_api import credentials
from pipeline.store.manifest import from_json

CHILD = Path(__file__).with_name("child.py")
MARKER = ".kaggle-partial"  # ending of the file by which the client knows how to resume
DOWNLOAD_LIMIT = 6 * 3600.0  # seconds for a whole download; a stalled one ends after `timeout`
LONGEST_WAIT = 300.0  # seconds that Kaggle can make us wait before the next try
RULES = "https://www.kaggle.com/competitions/{}/rules"
REFUSALS = AccessDenied, UsageError, errors.BadData, errors.SubmissionLimit  # a 4xx but 429: Kaggle has not done it
DIED_LOADING = 1  # exit code of Python's own; the child, once it is loaded, has another
LARGEST = 2**63 - 1  # of Kaggle's numbers; none is negative

# What the client sees of our environment, beside credentials.  VERBOSE is not among it: it makes it print tokens.
PASSED_ON = {
    "PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP",
    "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", *credentials.CERTIFICATES, "KAGGLE_API_ENVIRONMENT",
}  # fmt: skip

T = TypeVar("T")
Watch = tuple[Path, Callable[[int], None]]  # a folder that grows, and who is told its bytes


class Answer:
    """What Kaggle answers: none of its numbers is negative, or too large to be meant."""

    def __post_init__(self) -> None:
        """Raise ValueError if one is."""
        for name, value in vars(self).items():
            if isinstance(value, int) and not 0 <= value <= LARGEST:
                raise ValueError(f"{name} is {value!r}")


@dataclass(frozen=True)
class RemoteFile(Answer):
    """A file of the competition: its name (a relative path) and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Limits(Answer):
    """How many submissions were made, and how many are still allowed today (UTC)."""

    today: int
    total: int
    allowed: int
    by_total: bool  # whether the competition's lifetime limit is what binds


@dataclass(frozen=True)
class Submission(Answer):
    """One submission as Kaggle lists it.  Scores are Kaggle's own strings, "" until known."""

    ref: int
    date: str  # ISO 8601, UTC
    description: str
    file_name: str
    size: int  # bytes
    status: str  # PENDING, COMPLETE or ERROR
    public: str
    private: str
    error: str


@dataclass(frozen=True)
class Created(Answer):
    """Kaggle's answer to a submission or a pushed kernel."""

    number: int  # the submission's ref or the kernel's version; 0: not named
    error: str = ""  # why it was not created
    invalid: list[str] = field(default_factory=list)  # competitions whose files the kernel does not get


@dataclass(frozen=True)
class KernelStatus(Answer):
    """How a kernel's run stands: QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_..., and why it failed."""

    status: str
    message: str


@dataclass(frozen=True)
class Kaggle:
    """The client, with its limits.

    `timeout` is in seconds for each call; for a download, for each wait without a new byte.  A submission and a kernel
    get at least `upload_timeout`.  Reading calls are tried `attempts` times, waiting `backoff`, 2 `backoff`, 4
    `backoff`... seconds between (at most 60), or as long as Kaggle's Retry-After says.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    timeout: float = 60.0
    upload_timeout: float = 300.0
    attempts: int = 4
    backoff: float = 2.0
    sleep: Callable[[float], None] = time.sleep
    log: Log = lambda _: None  # hears of each new try

    def files(self, slug: str) -> list[RemoteFile]:
        """The competition's files."""
        return typed(list[RemoteFile], self._read(slug, "files", slug=slug))

    def limits(self, slug: str) -> Limits:
        """Today's submission limits."""
        return typed(Limits, self._read(slug, "limits", slug=slug))

    def submissions(self, slug: str) -> list[Submission]:
        """All of the team's submissions, newest first."""
        return typed(list[Submission], self._read(slug, "submissions", slug=slug))

    def submission(self, slug: str, ref: int) -> Submission | None:
        """The team's submission `ref`, or None while Kaggle does not know it yet: it says 404 for a moment."""
        try:
            submission = typed(Submission, self._read(slug, "submission", ref=ref))
        except UsageError:
            return None
        if submission.ref != ref:
            raise _nonsense(f"submission {submission.ref} in the place of {ref}")
        return submission

    def download(self, slug: str, folder: Path, progress: Callable[[int], None]) -> None:
        """Download SLUG.zip into `folder`, resuming; `progress` is told the bytes there so far."""
        self._read(slug, "download", (folder, progress), slug=slug, folder=str(folder))

    def submit(self, slug: str, file: Path, message: str) -> int:
        """Upload and submit `file` once; the ref that Kaggle's answer names.

        Raises:
            NetworkError: also when it is unknown whether Kaggle took it (`unanswered`).
        """
        created = self._create(slug, "submit", slug=slug, file=str(file), message=message)
        if created.error:
            raise NetworkError(f"{file} could not be uploaded to Kaggle: check the network and run again")
        if not created.number:
            raise NetworkError("Kaggle named no ref for the submission: run again", unanswered=True)
        return created.number

    def username(self) -> str:
        """Whose credentials these are.

        Raises:
            AccessDenied: they do not say.
        """
        name = self._read("you", "username")
        if not name:
            raise AccessDenied(f"the credentials name no user, to whom the kernel would belong: {credentials.CURE}")
        return str(name)

    def push_kernel(self, folder: Path, kernel: str, slug: str) -> int:
        """Save what lies in `folder` as a new version of the kernel USER/NAME, which runs; the version.

        Raises:
            UsageError: Kaggle gives the kernel no files of the competition `slug`.
            PipelineError: Kaggle refuses it otherwise: no accelerator left, too many kernels at once.
            NetworkError: also when it is unknown whether Kaggle took it (`unanswered`).
        """
        created = self._create(kernel, "push_kernel", folder=str(folder))
        if created.error:
            raise PipelineError(f"Kaggle did not take the kernel: {printable(created.error)}")
        if created.invalid:
            raise UsageError(
                f"Kaggle gives the kernel no files of {printable(', '.join(created.invalid))}: join the competition "
                f"and accept its rules at {RULES.format(slug)}, then push it again with --force"
            )
        return created.number

    def kernel_status(self, kernel: str) -> KernelStatus:
        """How the run of USER/NAME/VERSION stands."""
        return typed(KernelStatus, self._read(kernel, "kernel_status", kernel=kernel))

    def kernel_output(self, kernel: str, names: Collection[str], folder: Path, progress: Callable[[int], None]) -> None:
        """Download those output files of USER/NAME/VERSION that have one of these names into `folder`, resuming.

        Other names are not even looked at: they are Kaggle's, and may lead out of the folder.
        """
        pattern = rf"\A(?:{'|'.join(map(re.escape, names))})\Z"
        self._read(kernel, "kernel_output", (folder, progress), kernel=kernel, folder=str(folder), pattern=pattern)

    def kernel_log(self, kernel: str) -> list[str]:
        """The lines of a kernel's log, which comes as plain text or as a JSON list of {stream_name, time, data}."""
        log = typed(str, self._read(kernel, "kernel_log", kernel=kernel))
        with suppress(ValueError, TypeError, KeyError, RecursionError):  # then it is plain text
            log = "".join(str(event["data"]) for event in json.loads(log))
        return [printable(line) for line in log.splitlines() if line.strip()]

    def _create(self, subject: str, call: str, **arguments: str) -> Created:
        """What the child answers to a call that must not be repeated."""
        reply = self._call(subject, {"call": call, **arguments}, max(self.timeout, self.upload_timeout))
        return typed(Created, reply, unanswered=True)

    def _read(self, subject: str, call: str, watch: Watch | None = None, **arguments: str | int) -> Any:
        """What the child answers to a call that changes nothing; a try that brought bytes does not count as one."""
        limit, folder = (DOWNLOAD_LIMIT, watch[0]) if watch else (self.timeout, None)
        failed, there = 0, _bytes_in(folder)
        while True:
            try:
                return self._call(subject, {"call": call, **arguments}, limit, watch)
            except NetworkError as error:
                before, there = there, _bytes_in(folder)
                failed = 0 if there > before else failed + 1
                if failed >= self.attempts:
                    raise
                wait = min(self.backoff * 2 ** max(failed - 1, 0), 60.0) + random.uniform(0, self.backoff)
                if error.retry_after is not None:
                    wait = min(error.retry_after, LONGEST_WAIT)
                what = f"going on after {there} bytes" if there > before else "trying again"
                self.log(f"kaggle: {error}; {what} in {wait:.0f} s")
                self.sleep(wait)

    def _call(self, subject: str, request: dict[str, Any], limit: float, watch: Watch | None = None) -> Any:
        """One call, tried once, for at most `limit` seconds; its errors are about `subject`."""
        found = credentials.require(self.environ)
        environment = {name: value for name, value in self.environ.items() if name in PASSED_ON}
        # A folder for its settings that is there, and has none.
        environment |= {**found.variables, "KAGGLE_CONFIG_DIR": str(CHILD.parent), "PYTHONPATH": _packages()}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            # -P: the child's own folder must not shadow installed packages.
            with subprocess.Popen(
                [sys.executable, "-P", str(CHILD)],
                stdin=subprocess.PIPE, stdout=output, stderr=complaints, env=environment,
            ) as child:  # fmt: skip
                assert child.stdin is not None
                try:
                    with suppress(BrokenPipeError):  # it died at once; the missing answer says so
                        child.stdin.write(json.dumps(request).encode() + b"\n")
                        child.stdin.flush()  # it stays open: the child dies when it closes
                    self._wait(child, limit, watch)
                finally:
                    child.kill()
            answer, complaint = (_last_line(stream) for stream in (output, complaints))
        try:
            reply = json.loads(answer)
        except ValueError:
            reply = {"ok": False, "kind": "install", "message": complaint}
            if child.returncode != DIED_LOADING:
                text = f"the kaggle client ended without an answer (exit code {child.returncode}): try again"
                raise NetworkError(text, unanswered=True) from None
        reply = credentials.hide(reply, credentials.secrets(self.environ))
        if not reply["ok"]:
            raise refusal(subject, found.place, reply)
        return reply["value"]

    def _wait(self, child: subprocess.Popen[bytes], limit: float, watch: Watch | None) -> None:
        """Wait for the child within `limit` seconds and, when watching, within `timeout` of the last byte."""
        start = last = time.monotonic()
        size = -1
        while True:
            try:
                child.wait(timeout=0.1)
                return
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if watch is not None:
                folder, progress = watch
                if (grown := _bytes_in(folder)) != size:
                    size, last = grown, now
                    progress(size)
                if now - last > self.timeout:
                    raise NetworkError(f"the download stalled for {self.timeout:.0f} s: run again to resume it")
            if now - start > limit:
                text = f"Kaggle did not answer within {limit:.0f} s: try again later, or raise --timeout"
                raise NetworkError(text, unanswered=True)


def _packages() -> str:
    """PYTHONPATH for the child: where our own packages are, but not the folder we stand in, nor the project's."""
    own = {os.path.realpath(folder) for folder in (Path.cwd(), CHILD.parents[2])}
    return os.pathsep.join(path for path in map(os.path.abspath, sys.path) if os.path.realpath(path) not in own)


def _last_line(stream: IO[bytes]) -> str:
    stream.seek(0)
    return (stream.read().decode(errors="replace").strip().splitlines() or [""])[-1]


def _bytes_in(folder: Path | None) -> int:
    """Bytes of what was downloaded so far, without the client's own marker."""
    total = 0
    for path in folder.rglob("*") if folder else ():
        with suppress(FileNotFoundError):
            total += 0 if path.name.endswith(MARKER) or path.is_dir() else path.stat().st_size
    return total


def typed(kind: type[T], values: Any, *, unanswered: bool = False) -> T:
    """The child's answer as a `kind`.

    Raises:
        NetworkError: it is something else.
    """
    try:
        answer: T = from_json(kind, values)
    except (TypeError, ValueError) as error:
        raise _nonsense(f"{kind.__name__}: {error}", unanswered) from None
    return answer


def refusal(subject: str, credential: str, reply: Mapping[str, Any]) -> PipelineError:
    """Our error for what the child reports.

    `subject` is what it is about, a competition's slug or a kernel's USER/NAME; `credential` says where the credentials
    come from.
    """
    message, unanswered = printable(reply["message"]), reply.get("creating", False)
    match reply["kind"]:
        case "http":
            return _refused(subject, credential, reply, message)
        case "credentials":
            text = f"Kaggle does not accept the credentials in {credential} ({message}): {credentials.CURE}"
            return AccessDenied(text)
        case "usage":
            return NetworkError(message, unanswered=True) if unanswered else UsageError(message)
        case "install":
            cure = "pip install -r requirements.txt, or move away the file on PYTHONPATH that is in its way"
            return PipelineError(f"the kaggle client does not load ({message}):\n  {cure}")
        case "disk":
            return PipelineError(f"the system refused the kaggle client ({message}): free space, or check permissions")
        case "storage":  # its links are signed and grow old: a new one may do
            text = f"Kaggle's link does not lead to the file ({reply['status']}, {message}): run again, for a new link"
            return NetworkError(text, retry_after=_seconds(reply), unanswered=unanswered)
        case "network":
            text = f"cannot reach Kaggle ({message}): check the network and run again"
            return NetworkError(text, unanswered=unanswered)
        case _:
            return _nonsense(message, unanswered)


def _refused(subject: str, credential: str, reply: Mapping[str, Any], message: str) -> PipelineError:
    """Kaggle itself refused, with a status."""
    there = f"--competition {subject}"
    join = f"join the competition and accept its rules at {RULES.format(subject)}\n  or is {there} spelled wrong?"
    if "/" in subject:
        there = f"https://www.kaggle.com/code/{'/'.join(subject.split('/')[:2])}"
        join = f"is the kernel at {there}, and your phone verified, as GPUs need it?"
    match int(reply["status"]):
        case 401:
            return AccessDenied(f"Kaggle refused the credentials in {credential} (401): {credentials.CURE}")
        case 403:
            return AccessDenied(f"Kaggle refused (403, {message}): {join}")
        case 404:
            return UsageError(f"Kaggle knows no such thing (404, {message}): is {there} spelled right?")
        case 400 if re.search("submission.*(limit|allowance)|(limit|daily).*submission", message, re.I):
            return errors.SubmissionLimit(f"Kaggle refused the submission ({message}): the limit resets at 00:00 UTC")
        case status if status in (408, 429) or status >= 500:
            # Whoever answered, perhaps a gateway in Kaggle's place: the request may be carried out all the same.
            unanswered = status != 429 and reply["creating"]
            text = f"Kaggle is busy or down ({status}, {message}): try again later"
            return NetworkError(text, retry_after=_seconds(reply), unanswered=unanswered)
        case status:
            return errors.BadData(f"Kaggle refused the request ({status}, {message})")


def _nonsense(what: str, unanswered: bool = False) -> NetworkError:
    text = f"Kaggle's answer makes no sense to its client ({printable(what)})"
    return NetworkError(f"{text}: try again later; if it stays so, pip install -U kaggle", unanswered=unanswered)


def _seconds(reply: Mapping[str, Any]) -> float | None:
    try:
        return max(0.0, float(reply.get("retry_after") or ""))
    except ValueError:
        return None
