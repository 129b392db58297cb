"""Submissions, their scores and the daily limit, kept in FOLDER/state.json.

Each submission is on disk before the reply, so a killed rehearsal forgets none.  It is scored at once, and shown as
PENDING for `pending_seconds`.
"""

import csv
import dataclasses
import hashlib
import io
import random
import secrets
import threading
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.config import CLASSES
from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.store import atomic
from pipeline.store.manifest import read_json

FIRST_REF = 90_000_001  # beyond Kaggle's refs of today
SECONDS_A_DAY = 86_400
HEADER = ("ID", "Labels")
PENDING, COMPLETE, ERROR = "PENDING", "COMPLETE", "ERROR"


class Refusal(Exception):
    """Kaggle refuses the request, with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- scoring ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """COMPLETE with scores (five decimals, or "" without labels), or ERROR with the reason."""

    status: str
    public: str = ""
    private: str = ""
    error: str = ""


@dataclass(frozen=True)
class Truth:
    """The test labels by id, and the half of the ids behind the public score."""

    labels: dict[int, int]
    public: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the labels from a CSV `ID,Labels`; MissingInput or BadData if it is none."""
        try:
            labels = _parse_csv(path.read_bytes())
        except FileNotFoundError:
            raise MissingInput(f"--labels {path}: there is no such file") from None
        except ValueError as error:
            raise BadData(f"--labels {path}: {error}") from None
        ids = sorted(labels)
        random.Random(0).shuffle(ids)  # the same public half every time
        return cls(labels, frozenset(ids[: len(ids) // 2]))


def score(content: bytes, truth: Truth | None) -> Outcome:
    """The accuracy of a submitted CSV; without `truth` only its form is checked."""
    try:
        predicted = _parse_csv(content)
    except ValueError as error:
        return Outcome(ERROR, error=f"ERROR: {error}")
    if truth is None:
        return Outcome(COMPLETE)
    if missing := truth.labels.keys() - predicted.keys():
        return Outcome(ERROR, error=f"ERROR: Unable to find {len(missing)} required key values in the 'ID' column")
    if unknown := predicted.keys() - truth.labels.keys():
        return Outcome(ERROR, error=f"ERROR: The key value '{min(unknown)}' in the 'ID' column is unexpected")
    right = {i for i, label in truth.labels.items() if predicted[i] == label}
    return Outcome(COMPLETE, _share(right, truth.public), _share(right, truth.labels.keys() - truth.public))


def _share(right: Set[int], ids: Set[int]) -> str:
    """The share of right ids, cut like Kaggle's scores, not rounded."""
    return f"{len(right & ids) * 100_000 // max(1, len(ids)) / 100_000:.5f}"


def _parse_csv(content: bytes) -> dict[int, int]:
    """The labels by id, columns and rows in any order; ValueError with the line if it is not such a CSV."""
    labels: dict[int, int] = {}
    text = io.StringIO(content.decode("utf-8-sig", errors="replace"), newline="")
    rows = csv.DictReader(text, strict=True)
    try:
        if set(rows.fieldnames or ()) != set(HEADER):
            raise ValueError
        for row in rows:
            key, label = (int(row[name]) for name in HEADER)
            if len(row) > len(HEADER) or key in labels or not 0 <= label < CLASSES:
                raise ValueError
            labels[key] = label
    except (ValueError, TypeError, csv.Error):  # TypeError: a missing cell
        wanted = "the header ID,Labels, then each id once with a label 0..9"
        raise ValueError(f"Line {rows.line_num} of the CSV is invalid: expected {wanted}") from None
    return labels


# --- submissions --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submission:
    """One submission and its score."""

    ref: int
    time: float  # seconds since 1970, UTC
    file_name: str
    description: str
    size: int  # bytes
    sha256: str
    outcome: Outcome

    def shown(self, pending: bool) -> dict[str, Any]:
        """As Kaggle's API shows it."""
        outcome = Outcome(PENDING) if pending else self.outcome
        return {
            "ref": self.ref,
            "date": timestamp(self.time),
            "description": self.description,
            "fileName": self.file_name,
            "totalBytes": self.size,
            "status": outcome.status,
            "publicScore": outcome.public,
            "privateScore": outcome.private,
            "errorDescription": outcome.error,
        }


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC, as Kaggle writes it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@dataclass
class Memory:
    """state.json: the competition, the origin of its files, and its submissions, oldest first."""

    slug: str
    source: str
    submissions: list[Submission] = field(default_factory=list)


class State:
    """The state of one competition on the mock server.  Thread-safe."""

    truth: Truth | None = None  # labels that score new submissions
    daily_limit = 20  # submissions a UTC day
    pending_seconds = 1.0  # from submission to score

    def __init__(self, folder: Path, slug: str, source: str) -> None:
        """Open or create the state in `folder`; `source` says where the competition's files are.

        Raises:
            UsageError: the state belongs to another competition or other files.
            BadData: state.json is damaged.
        """
        self.clock: Callable[[], float] = time.time
        self.source, self._file, self._memory = source, folder / "state.json", Memory(slug, source)
        self._lock = threading.Lock()
        self._uploads: dict[str, tuple[str, int]] = {}  # by token: file name and size in bytes
        self._contents: dict[str, bytes] = {}  # of received uploads, by token
        if self._file.exists():
            self._memory = read_json(self._file, Memory, f"start over with rm -r {folder}")
        if (self._memory.slug, self._memory.source) != (slug, source):
            other = f"{folder} remembers {self._memory.slug} with the files of {self._memory.source}"
            renamed = "rename the folder that is served, which names the competition"
            cure = renamed if self._memory.slug == slug else "use another --state"
            raise UsageError(f"{other}, not {slug} with those of {source}: {cure}")
        self.received = self._memory.submissions  # oldest first
        self._save()

    def _save(self) -> None:
        atomic.write_json(self._file, dataclasses.asdict(self._memory))

    def start_upload(self, file_name: str, size: int) -> str:
        """Announce an upload; returns its token."""
        token = secrets.token_hex(16)
        self._uploads[token] = file_name, size
        return token

    def store_upload(self, token: str, content: bytes) -> None:
        """Store the content of an announced upload, again after a broken connection."""
        if token not in self._uploads:
            raise Refusal(404, "This upload was not announced")
        if len(content) != (size := self._uploads[token][1]):
            raise Refusal(400, f"{len(content)} bytes came, {size} were announced")
        self._contents[token] = content

    def submit(self, token: str, description: str) -> int:
        """Turn an upload into a submission, once; returns its ref."""
        with self._lock:
            if token not in self._contents:
                raise Refusal(400, "Submission not allowed: the file was not uploaded")
            now = self.clock()
            if self._today(now) >= self.daily_limit:
                used = f"Your team has used its daily Submission allowance ({self.daily_limit}) today"
                raise Refusal(400, f"Submission not allowed: {used}, please try again tomorrow UTC.")
            name, content = self._uploads[token][0], self._contents.pop(token)
            ref, sha256 = FIRST_REF + len(self.received), hashlib.sha256(content).hexdigest()
            outcome = score(content, self.truth)
            self.received.append(Submission(ref, now, name, description, len(content), sha256, outcome))
            self._save()
        return ref

    def _today(self, now: float) -> int:
        return sum(s.time // SECONDS_A_DAY == now // SECONDS_A_DAY for s in self.received)

    def submissions(self) -> list[dict[str, Any]]:
        """All submissions as Kaggle shows them now, newest first."""
        with self._lock:
            now = self.clock()
            return [s.shown(pending=now < s.time + self.pending_seconds) for s in reversed(self.received)]

    def limits(self) -> tuple[int, int, int]:
        """Submissions made today, made in all, and still allowed today."""
        with self._lock:
            today = self._today(self.clock())
            return today, len(self.received), max(0, self.daily_limit - today)
