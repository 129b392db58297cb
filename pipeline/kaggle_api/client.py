"""Kaggle, through the official client in a child process: wall-clock limits, typed replies, typed errors.

Every call ends within its limit, its environment holds only what it needs, and each failure is one of our errors.  What
follows a failure depends on the call:

    reading     a NetworkError (no network, time limit, 429, 5xx) is retried, after Retry-After or ever longer waits;
                a download resumes
    creating    a submission or a kernel is requested once.  After a 5xx or 408, a time limit, a lost connection or a
                senseless reply the error is `unanswered`: Kaggle may still carry it out, and the caller has to look
                (pipeline.submit)
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
MARKER = ".kaggle-partial"  # suffix of the client's own file for resuming
DOWNLOAD_LIMIT = 6 * 3600.0  # seconds for a whole download; a stalled one ends after `timeout`
LONGEST_WAIT = 300.0  # seconds; a longer Retry-After is cut
RULES = "https://www.kaggle.com/competitions/{}/rules"
REFUSALS = AccessDenied, UsageError, errors.BadData, errors.SubmissionLimit  # 4xx except 429: not carried out
DIED_LOADING = 1  # Python's exit code; the child, once loaded, never uses it

# The environment of the client, besides credentials.  Not VERBOSE, which makes it print tokens.
PASSED_ON = {
    "PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP",
    "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", *credentials.CERTIFICATES, "KAGGLE_API_ENVIRONMENT",
}  # fmt: skip

T = TypeVar("T")
Watch = tuple[Path, Callable[[int], None]]  # a growing folder, and a callback for its bytes


class Answer:
    """A reply of Kaggle's, whose numbers are neither negative nor absurdly large."""

    def __post_init__(self) -> None:
        """Raise ValueError for such a number."""
        for name, value in vars(self).items():
            if isinstance(value, int) and not 0 <= value < 2**63:
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
    by_total: bool  # whether the competition's lifetime limit applies first


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
    """Kaggle's reply to a submission or a pushed kernel."""

    number: int  # the submission's ref or the kernel's version; 0: missing
    error: str = ""  # why it was not created
    invalid: list[str] = field(default_factory=list)  # competitions whose files the kernel lacks


@dataclass(frozen=True)
class KernelStatus(Answer):
    """A kernel's status: QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_..., and why it failed."""

    status: str
    message: str


@dataclass(frozen=True)
class Kaggle:
    """The client, with its limits.

    `timeout` is in seconds, per call; for a download, without a new byte.  Submissions and kernels get at least
    `upload_timeout`.  Reading calls are tried `attempts` times, `backoff`, 2 `backoff`, 4 `backoff`... seconds apart
    (at most 60), or as Retry-After says.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    timeout: float = 60.0
    upload_timeout: float = 300.0
    attempts: int = 4
    backoff: float = 2.0
    sleep: Callable[[float], None] = time.sleep
    log: Log = lambda _: None  # for retries

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
        """The team's submission `ref`, or None while Kaggle still says 404."""
        try:
            submission = typed(Submission, self._read(slug, "submission", ref=ref))
        except UsageError:
            return None
        if submission.ref != ref:
            raise _nonsense(f"submission {submission.ref} in the place of {ref}")
        return submission

    def download(self, slug: str, folder: Path, progress: Callable[[int], None]) -> None:
        """Download SLUG.zip into `folder`, resuming; calls `progress` with the bytes so far."""
        self._read(slug, "download", (folder, progress), slug=slug, folder=str(folder))

    def submit(self, slug: str, file: Path, message: str) -> int:
        """Upload and submit `file` once; returns the ref in Kaggle's reply.  A NetworkError may be `unanswered`."""
        created = self._create(slug, "submit", slug=slug, file=str(file), message=message)
        if created.error:
            raise NetworkError(f"{file} could not be uploaded to Kaggle: check the network and run again")
        if not created.number:
            raise NetworkError("Kaggle named no ref for the submission: run again", unanswered=True)
        return created.number

    def username(self) -> str:
        """The user of the credentials; AccessDenied if they do not name one."""
        name = self._read("you", "username")
        if not name:
            raise AccessDenied(f"the credentials do not name the user who would own the kernel: {credentials.CURE}")
        return str(name)

    def push_kernel(self, folder: Path, kernel: str, slug: str) -> int:
        """Save `folder` as a new version of the kernel USER/NAME and run it; returns the version.

        Raises:
            UsageError: Kaggle gives the kernel no files of the competition `slug`.
            PipelineError: Kaggle refuses it otherwise: no accelerator left, too many kernels at once.
        """
        created = self._create(kernel, "push_kernel", folder=str(folder))
        if created.error:
            raise PipelineError(f"Kaggle refused the kernel: {printable(created.error)}")
        if created.invalid:
            raise UsageError(
                f"Kaggle gives the kernel no files of {printable(', '.join(created.invalid))}: join the competition "
                f"and accept its rules at {RULES.format(slug)}, then push it again with --force"
            )
        return created.number

    def kernel_status(self, kernel: str) -> KernelStatus:
        """The status of USER/NAME/VERSION."""
        return typed(KernelStatus, self._read(kernel, "kernel_status", kernel=kernel))

    def kernel_output(self, kernel: str, names: Collection[str], folder: Path, progress: Callable[[int], None]) -> None:
        """Download the output files of USER/NAME/VERSION with these names into `folder`, resuming.

        All others are ignored: Kaggle chooses their names, which may lead out of the folder.
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
        """The child's reply to a call that must not be repeated."""
        reply = self._call(subject, {"call": call, **arguments}, max(self.timeout, self.upload_timeout))
        return typed(Created, reply, unanswered=True)

    def _read(self, subject: str, call: str, watch: Watch | None = None, **arguments: str | int) -> Any:
        """The child's reply to a call that changes nothing; tries that brought bytes do not count."""
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
                    wait = error.retry_after
                what = f"going on after {there} bytes" if there > before else "trying again"
                problem, _, _cure = str(error).rpartition(": ")
                self.log(f"kaggle: {problem}; {what} in {wait:.0f} s")
                self.sleep(wait)

    def _call(self, subject: str, request: dict[str, Any], limit: float, watch: Watch | None = None) -> Any:
        """One try of one call, for at most `limit` seconds; its errors are about `subject`."""
        found = credentials.require(self.environ)
        environment = {name: value for name, value in self.environ.items() if name in PASSED_ON}
        # An empty folder for its settings.
        environment |= {**found.variables, "KAGGLE_CONFIG_DIR": str(CHILD.parent), "PYTHONPATH": _packages()}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            # -P: the child's own folder must not shadow installed packages.
            with subprocess.Popen(
                [sys.executable, "-P", str(CHILD)],
                stdin=subprocess.PIPE, stdout=output, stderr=complaints, env=environment,
                bufsize=0,  # so that closing writes nothing
            ) as child:  # fmt: skip
                assert child.stdin is not None
                try:
                    with suppress(BrokenPipeError):  # it died at once; the missing reply shows it
                        child.stdin.write(json.dumps(request).encode() + b"\n")  # open: the child exits when it closes
                    self._wait(child, limit, watch)
                finally:
                    child.kill()
            answer, complaint = (_last_line(stream) for stream in (output, complaints))
        try:
            reply = json.loads(answer)
        except ValueError:
            reply = {"ok": False, "kind": "install", "message": complaint}
            if child.returncode != DIED_LOADING:
                text = f"the kaggle client ended without a reply (exit code {child.returncode}): try again"
                raise NetworkError(text, unanswered=True) from None
        reply = credentials.hide(reply, credentials.secrets(self.environ))
        if not reply["ok"]:
            raise refusal(subject, found.place, reply)
        return reply["value"]

    def _wait(self, child: subprocess.Popen[bytes], limit: float, watch: Watch | None) -> None:
        """Wait for the child, at most `limit` seconds, or when watching `timeout` after the last byte."""
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
    """PYTHONPATH for the child: our installed packages, without the current folder and the project's."""
    own = {os.path.realpath(folder) for folder in (Path.cwd(), CHILD.parents[2])}
    return os.pathsep.join(path for path in map(os.path.abspath, sys.path) if os.path.realpath(path) not in own)


def _last_line(stream: IO[bytes]) -> str:
    stream.seek(0)
    return (stream.read().decode(errors="replace").strip().splitlines() or [""])[-1]


def _bytes_in(folder: Path | None) -> int:
    """Bytes downloaded so far, without the client's marker."""
    total = 0
    for path in folder.rglob("*") if folder else ():
        with suppress(FileNotFoundError):
            total += 0 if path.name.endswith(MARKER) or path.is_dir() else path.stat().st_size
    return total


def typed(kind: type[T], values: Any, *, unanswered: bool = False) -> T:
    """The child's reply as a `kind`; NetworkError if it is something else."""
    try:
        answer: T = from_json(kind, values)
    except (TypeError, ValueError) as error:
        raise _nonsense(f"{kind.__name__}: {error}", unanswered) from None
    return answer


def refusal(subject: str, credential: str, reply: Mapping[str, Any]) -> PipelineError:
    """Our error for the child's reply about `subject`, a slug or a kernel's USER/NAME; `credential` is their origin."""
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
    """Our error for a refusal by Kaggle itself, with a status."""
    there = f"--competition {subject}"
    join = f"join the competition and accept its rules at {RULES.format(subject)}\n  or is {there} spelled wrong?"
    if "/" in subject:
        there = f"https://www.kaggle.com/code/{'/'.join(subject.split('/')[:2])}"
        join = f"is the kernel at {there}, and your phone verified, as GPUs need it?"
    match reply["status"]:
        case 401:
            return AccessDenied(f"Kaggle refused the credentials in {credential} (401): {credentials.CURE}")
        case 403:
            return AccessDenied(f"Kaggle refused (403, {message}): {join}")
        case 404:
            return UsageError(f"Kaggle does not find it (404, {message}): is {there} spelled right?")
        case 400 if re.search("submission.*(limit|allowance)|(limit|daily).*submission", message, re.I):
            return errors.SubmissionLimit(f"Kaggle refused the submission ({message}): the limit resets at 00:00 UTC")
        case status if status in (408, 429) or status >= 500:
            # Perhaps only a gateway replied: Kaggle may still carry out the request.
            unanswered = status != 429 and reply["creating"]
            text = f"Kaggle is busy or down ({status}, {message}): try again later"
            return NetworkError(text, retry_after=_seconds(reply), unanswered=unanswered)
        case status:
            return errors.BadData(f"Kaggle refused the request ({status}, {message})")


def _nonsense(what: str, unanswered: bool = False) -> NetworkError:
    text = f"Kaggle's reply makes no sense to its client ({printable(what)})"
    return NetworkError(f"{text}: try again later; if it persists, pip install -U kaggle", unanswered=unanswered)


def _seconds(reply: Mapping[str, Any]) -> float | None:
    try:
        return min(max(0.0, float(reply.get("retry_after") or "")), LONGEST_WAIT)
    except ValueError:
        return None
