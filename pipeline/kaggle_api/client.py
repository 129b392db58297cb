"""Kaggle, through the genuine client in a child process: wall-clock limits, typed answers, typed errors.

What the client lacks (see child.py) is added here: every call ends within its limit, reading calls are
repeated with backoff, its environment holds only what it needs, and each failure is one of our errors.
Submitting is never repeated here: whether that is safe is for the submit stage to find out.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import tenacity

from pipeline.errors import (
    AccessDenied,
    BadData,
    Log,
    NetworkError,
    PipelineError,
    SubmissionLimit,
    UsageError,
    printable,
)
from pipeline.kaggle_api import credentials
from pipeline.store.manifest import from_json

# --- What the child process answers, checked: values of the right types, or one of our errors that names


Answer = TypeVar("Answer")

LARGEST = 2**63 - 1  # of Kaggle's numbers; none is negative


def typed(kind: type[Answer], values: Any) -> Answer:
    """The dataclass `kind` of these fields.

    Raises:
        NetworkError: a field has another type, or is a number that cannot be meant.
    """
    try:
        found: Answer = from_json(kind, values)
    except TypeError as error:
        raise _nonsense(f"{kind.__name__}: {error}") from None
    for name, value in vars(found).items():
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise _nonsense(f"{kind.__name__}.{name} is {value!r}")
    return found


def typed_list(kind: type[Answer], items: Any) -> list[Answer]:
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


CHILD = Path(__file__).with_name("child.py")
MARKER = ".kaggle-partial"  # ending of the file by which the client knows how to go on
DOWNLOAD_LIMIT = 6 * 3600.0  # seconds for a whole download; a stalled one ends after `timeout`

# What the client may see of our environment.  VERBOSE is not among it: it makes the client print tokens.
PASSED_ON = {
    "PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP",
    "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "SSL_CERT_FILE", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR",
    "KAGGLE_API_ENVIRONMENT", "KAGGLE_API_V1_TOKEN", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_DATA_PROXY_URL",
}  # fmt: skip

T = TypeVar("T")
Watch = tuple[Path, Callable[[int], None]]  # a folder that grows, and who is told its bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file of the competition: its name (a relative path) and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Limits:
    """Submissions made today and ever, and how many are still allowed today (UTC).

    `by_total`: the competition's lifetime limit is what binds.
    """

    today: int
    total: int
    allowed: int
    by_total: bool


@dataclass(frozen=True)
class Submission:
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
class Kaggle:
    """The client, with its limits.

    `timeout` is in seconds for each call; for a download, for each wait without a new byte.  A submission gets at least
    `upload_timeout`.  Reading calls are tried `attempts` times, waiting `backoff`, 2 `backoff`, 4 `backoff`... seconds
    between (at most 60), or as long as Kaggle's Retry-After says.
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
        return typed_list(RemoteFile, self.read(slug, {"call": "files", "slug": slug}))

    def limits(self, slug: str) -> Limits:
        """Today's submission limits."""
        return typed(Limits, self.read(slug, {"call": "limits", "slug": slug}))

    def submissions(self, slug: str) -> list[Submission]:
        """All of the team's submissions, newest first."""
        return typed_list(Submission, self.read(slug, {"call": "submissions", "slug": slug}))

    def submission(self, slug: str, ref: int) -> Submission | None:
        """The submission `ref`, or None while Kaggle does not know it yet."""
        try:
            found = typed(Submission, self.read(slug, {"call": "submission", "ref": ref}))
        except UsageError:  # 404: it answers so for a moment right after submitting
            return None
        if found.ref != ref:
            raise NetworkError(f"Kaggle answered with submission {found.ref} when asked for {ref}: try again later")
        return found

    def download(self, slug: str, folder: Path, progress: Callable[[int], None]) -> None:
        """Download SLUG.zip into `folder`, resuming; `progress` is told the bytes there so far.

        As long as `attempts` tries bring something, there are as many again.
        """
        request = {"call": "download", "slug": slug, "folder": str(folder)}
        there = _bytes_in(folder)
        while True:
            try:
                self.retrying(lambda: self.call(slug, request, DOWNLOAD_LIMIT, (folder, progress)))
            except NetworkError as error:
                before, there = there, _bytes_in(folder)
                if there <= before:
                    raise
                self.log(f"kaggle: {error}; going on after {there} bytes")
            else:
                return

    def submit(self, slug: str, file: Path, message: str) -> int:
        """Upload and submit `file` once; the ref that Kaggle's answer names.

        Raises:
            NetworkError: also when it is unknown whether Kaggle took it.
        """
        request = {"call": "submit", "slug": slug, "file": str(file), "message": message}
        return ref(file, self.call(slug, request, max(self.timeout, self.upload_timeout)))

    def read(self, subject: str, request: dict[str, Any], script: Path | None = None) -> Any:
        """What the child answers to a call that changes nothing; `subject` and `script` as in `call`."""
        return self.retrying(lambda: self.call(subject, request, self.timeout, script=script))

    def retrying(self, call: Callable[[], T]) -> T:
        """The answer to a call that may be repeated: after a NetworkError, as the class says."""
        exponential = tenacity.wait_exponential(self.backoff, max=60) + tenacity.wait_random(0, self.backoff)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, NetworkError) else None
            return min(asked, 300.0) if asked is not None else exponential(state)

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(NetworkError),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=wait,
            sleep=self.sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )
        return tries(call)

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.log(f"kaggle: {error}; trying again in {state.upcoming_sleep:.0f} s")

    def call(
        self,
        subject: str,
        request: dict[str, Any],
        limit: float,
        watch: Watch | None = None,
        script: Path | None = None,
    ) -> Any:
        """One call, tried once, for at most `limit` seconds.

        `subject` is what an error is about, a competition's slug or a kernel's USER/NAME; `script` another child's.
        """
        credential = credentials.require(self.environ)
        environment = {name: value for name, value in self.environ.items() if name in PASSED_ON}
        with tempfile.TemporaryFile() as output:
            # -P: the child's own folder must not shadow installed packages.
            with subprocess.Popen(
                [sys.executable, "-P", str(script or CHILD)],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL, env=environment,
            ) as child:  # fmt: skip
                try:
                    _send(child.stdin, request)
                    self._wait(child, limit, watch)
                finally:
                    child.kill()
            output.seek(0)
            raw = output.read()
        try:
            reply = json.loads(raw)
        except ValueError:
            raise NetworkError(
                f"the kaggle client ended without an answer (exit code {child.returncode}): try again",
                unanswered=True,
            ) from None
        reply = credentials.hide(reply, credentials.secrets(self.environ))
        if not reply["ok"]:
            raise refusal(subject, credential, reply)
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
                raise NetworkError(
                    f"Kaggle did not answer within {limit:.0f} s: try again later, or raise --timeout",
                    unanswered=True,
                )


def _send(stdin: IO[bytes] | None, request: dict[str, Any]) -> None:
    """Send the request and leave stdin open: the child dies when it closes."""
    assert stdin is not None
    try:
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
    except BrokenPipeError:
        pass  # it died at once; the missing answer says so


def _bytes_in(folder: Path) -> int:
    """Bytes of what was downloaded so far, without the client's own marker."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += 0 if path.name.endswith(MARKER) or path.is_dir() else path.stat().st_size
    return total
