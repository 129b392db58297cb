"""Submissions, their scores and the daily limit, kept in FOLDER/state.json.

Each submission is on disk before it is answered, so a killed rehearsal forgets none.  It is scored when it comes in;
until `pending_seconds` are over it is shown as PENDING.
"""

import csv
import dataclasses
import hashlib
import io
import json
import random
import re
import secrets
import threading
from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.config import CLASSES
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.store import atomic

FIRST_REF = 90_000_001  # beyond Kaggle's refs of today, so that nobody takes one for the other
SECONDS_A_DAY = 86_400
HEADER = ["ID", "Labels"]
PENDING, COMPLETE, ERROR = "PENDING", "COMPLETE", "ERROR"
SPLIT_SEED = 0  # of the public half


class Refusal(Exception):
    """Kaggle refuses the request, with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- scoring ------------------------------------------------------------------------------------------------


class _Unscorable(Exception):
    """What is wrong with the CSV, in the words of Kaggle's parser."""


@dataclass(frozen=True)
class Outcome:
    """COMPLETE with scores (five decimals, or "" when there are no labels), or ERROR with the reason."""

    status: str
    public: str = ""
    private: str = ""
    error: str = ""


@dataclass(frozen=True)
class Truth:
    """The test set's labels by id, and the half of the ids that the public score is taken over."""

    labels: dict[int, int]
    public: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the labels from a CSV `ID,Labels`.

        Raises:
            MissingInput: there is no such file.
            BadData: it is not a CSV of that kind.
        """
        try:
            labels = _parse_csv(path.read_bytes())
        except FileNotFoundError:
            raise MissingInput(f"--labels {path}: there is no such file") from None
        except _Unscorable as error:
            raise BadData(f"--labels {path}: {error}; it must be a CSV with the header ID,Labels") from None
        ids = sorted(labels)
        random.Random(SPLIT_SEED).shuffle(ids)
        return cls(labels, frozenset(ids[: len(ids) // 2]))


def score(content: bytes, truth: Truth | None) -> Outcome:
    """The accuracy of a submitted CSV; without `truth` only its form is checked."""
    try:
        predicted = _parse_csv(content)
        if truth is None:
            return Outcome(COMPLETE)
        if missing := truth.labels.keys() - predicted.keys():
            raise _Unscorable(f"Unable to find {len(missing)} required key values in the 'ID' column")
        if unknown := predicted.keys() - truth.labels.keys():
            raise _Unscorable(f"The key value '{min(unknown)}' in the 'ID' column is unexpected")
    except _Unscorable as error:
        return Outcome(ERROR, error=f"ERROR: {error}")
    right = {i for i, label in truth.labels.items() if predicted[i] == label}
    return Outcome(COMPLETE, _share(right, truth.public), _share(right, truth.labels.keys() - truth.public))


def _share(right: Set[int], ids: Set[int]) -> str:
    """How many of the ids are right; cut, not rounded: as Kaggle's scores are."""
    return f"{len(right & ids) * 100_000 // max(1, len(ids)) / 100_000:.5f}"


def _parse_csv(content: bytes) -> dict[int, int]:
    """The labels by id; columns and rows may come in any order."""
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header, lines = rows.fieldnames or [], list(rows)
    except (UnicodeDecodeError, csv.Error):
        raise _Unscorable("The submission is not a CSV file in UTF-8") from None
    for name in HEADER:
        if name not in header:
            raise _Unscorable(f"Required column '{name}' could not be found")
    labels: dict[int, int] = {}
    for number, line in enumerate(lines, 2):
        if line.keys() != set(HEADER) or None in line.values():
            raise _Unscorable(f"Line {number} does not have the 2 columns ID,Labels")
        for name in HEADER:
            if not re.fullmatch(r"[0-9]{1,9}", line[name]):
                value = printable(line[name], 40)
                raise _Unscorable(f"The value '{value}' in the column '{name}' (Line {number}) is not an integer")
        key, label = (int(line[name]) for name in HEADER)
        if label >= CLASSES:
            raise _Unscorable(f"The value '{label}' in the column 'Labels' (Line {number}) is not in 0..9")
        if key in labels:
            raise _Unscorable(f"The value '{key}' in the key column 'ID' was already defined (Line {number})")
        labels[key] = label
    return labels


# --- submissions --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The competition's rules and Kaggle's pace."""

    daily_limit: int = 20  # submissions a UTC day
    pending_seconds: float = 1.0  # from submitting until the score is shown


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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict; earlier versions also kept the name of a copy, `blob`."""
        kept = {name: value for name, value in values.items() if name != "blob"}
        return cls(**{**kept, "outcome": Outcome(**values["outcome"])})

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
            "submittedBy": "rehearsal",
            "teamName": "rehearsal",
        }


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC, as Kaggle writes it."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@dataclass
class _Upload:
    """A file that was announced, and its content once that is here."""

    file_name: str
    size: int  # bytes
    content: bytes | None = None


class State:
    """What the mock server remembers of one competition.  Safe to use from several threads."""

    def __init__(self, folder: Path, slug: str, source: str, settings: Settings, clock: Callable[[], float]) -> None:
        """Open the state in `folder`, or begin it; `source` says which files the competition has.

        Raises:
            UsageError: the state is of another competition or of other files.
            BadData: state.json is damaged.
        """
        self.truth: Truth | None = None  # what new submissions are scored with
        self.settings, self._clock = settings, clock
        self.received: list[Submission] = []  # oldest first
        self._file, self._identity = folder / "state.json", {"slug": slug, "source": source}
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
        self._load()
        self._save()

    def _load(self) -> None:
        try:
            values = json.loads(self._file.read_bytes())
            identity = {key: values[key] for key in self._identity}
            self.received = [Submission.from_dict(item) for item in values["submissions"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadData(f"{self._file} is damaged ({error}): start over with rm -r {self._file.parent}") from error
        if identity != self._identity:
            raise UsageError(
                f"{self._file.parent} remembers {identity['slug']} with the files of {identity['source']}, not "
                f"{self._identity['slug']} with those of {self._identity['source']}: start over with "
                f"rm -r {self._file.parent}, or keep both with --state ANOTHER_FOLDER"
            )

    def _save(self) -> None:
        submissions = [dataclasses.asdict(submission) for submission in self.received]
        atomic.write_json(self._file, {**self._identity, "submissions": submissions})

    def start_upload(self, file_name: str, size: int) -> str:
        """Announce an upload; returns its token."""
        token = secrets.token_hex(16)
        self._uploads[token] = _Upload(file_name, size)
        return token

    def store_upload(self, token: str, content: bytes) -> None:
        """The content of an announced upload; may come again, after a broken connection."""
        upload = self._uploads.get(token)
        if upload is None:
            raise Refusal(404, "This upload was not announced, or is submitted already")
        if len(content) != upload.size:
            raise Refusal(400, f"{len(content)} bytes came, {upload.size} were announced")
        upload.content = content

    def submit(self, token: str, description: str) -> int:
        """Make an upload a submission; returns its ref.  An upload serves once."""
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None or upload.content is None:
                raise Refusal(400, "Submission not allowed: the file was not uploaded")
            now, limit = self._clock(), self.settings.daily_limit
            if self._today(now) >= limit:
                hours = (SECONDS_A_DAY - now % SECONDS_A_DAY) / 3600
                used = f"Your team has used its daily Submission allowance ({limit}) today"
                raise Refusal(
                    400, f"Submission not allowed: {used}, please try again tomorrow UTC ({hours:.1f} hours from now)."
                )
            ref, sha256 = FIRST_REF + len(self.received), hashlib.sha256(upload.content).hexdigest()
            outcome = score(upload.content, self.truth)
            self.received.append(Submission(ref, now, upload.file_name, description, upload.size, sha256, outcome))
            del self._uploads[token]
            self._save()
        return ref

    def _today(self, now: float) -> int:
        return sum(s.time // SECONDS_A_DAY == now // SECONDS_A_DAY for s in self.received)

    def submissions(self) -> list[dict[str, Any]]:
        """All submissions as Kaggle shows them now, newest first."""
        with self._lock:
            now = self._clock()
            return [s.shown(pending=now < s.time + self.settings.pending_seconds) for s in reversed(self.received)]

    def limits(self) -> tuple[int, int, int]:
        """Submissions made today and ever, and those still allowed today."""
        with self._lock:
            today = self._today(self._clock())
            return today, len(self.received), max(0, self.settings.daily_limit - today)
