"""What the stand-in remembers: uploads, submissions and the daily limit, in FOLDER/state.json.

Every change is on disk before it is answered, so a killed rehearsal forgets nothing that it promised.
A submission is scored when it comes in; until `pending_seconds` are over it is merely shown as PENDING.
"""

import dataclasses
import hashlib
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.errors import BadData, UsageError
from pipeline.rehearsal.replies import Refusal
from pipeline.rehearsal.scoring import COMPLETE, PENDING, Outcome, Truth, judge
from pipeline.store import atomic

FIRST_REF = 90_000_001  # beyond Kaggle's refs of today, so that nobody takes one for the other
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Settings:
    """The competition's rules and Kaggle's pace."""

    daily_limit: int = 20  # submissions a UTC day
    pending_seconds: float = 1.0  # from submitting until the score is shown


@dataclass(frozen=True)
class Upload:
    """An upload that was announced; `blob` tells whether its bytes have come."""

    file_name: str
    size: int  # bytes
    blob: bool = False


@dataclass(frozen=True)
class Submission:
    """One submission and what became (or will become) of it."""

    ref: int
    time: float  # seconds since 1970, UTC
    file_name: str
    description: str
    size: int  # bytes
    sha256: str
    blob: str  # name of the file under uploads/
    outcome: Outcome

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict."""
        return cls(**{**values, "outcome": Outcome(**values["outcome"])})

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


class State:
    """The memory of one competition's rehearsals.  Safe to use from several threads."""

    def __init__(self, folder: Path, slug: str, source: str, settings: Settings, clock: Callable[[], float]) -> None:
        """Open the memory in `folder`, or begin it; `source` says which files the competition has.

        Raises:
            UsageError: the memory is of another competition or of other files.
            BadData: state.json is damaged.
        """
        self.folder = folder
        self.truth: Truth | None = None  # what new submissions are scored with
        self._settings, self._clock = settings, clock
        self._identity = {"slug": slug, "source": source}
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._submissions: list[Submission] = []
        (folder / "uploads").mkdir(parents=True, exist_ok=True)
        self._load()
        self._save()

    @property
    def _file(self) -> Path:
        return self.folder / "state.json"

    def _load(self) -> None:
        try:
            values = json.loads(self._file.read_bytes())
            identity = {key: values[key] for key in self._identity}
            self._uploads = {token: Upload(**item) for token, item in values["uploads"].items()}
            self._submissions = [Submission.from_dict(item) for item in values["submissions"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadData(f"{self._file} is damaged ({error}): start over with rm -r {self.folder}") from error
        if identity != self._identity:
            raise UsageError(
                f"{self.folder} remembers {identity['slug']} with the files of {identity['source']}, not "
                f"{self._identity['slug']} with those of {self._identity['source']}: start over with "
                f"rm -r {self.folder}, or keep both with --state ANOTHER_FOLDER"
            )

    def _save(self) -> None:
        atomic.write_json(
            self._file,
            {
                **self._identity,
                "uploads": {token: dataclasses.asdict(upload) for token, upload in self._uploads.items()},
                "submissions": [dataclasses.asdict(submission) for submission in self._submissions],
            },
        )

    # --- submitting -----------------------------------------------------------------------------------------

    def start_upload(self, file_name: str, size: int) -> str:
        """Announce an upload; its token."""
        token = secrets.token_hex(16)
        with self._lock:
            self._uploads[token] = Upload(file_name, size)
            self._save()
        return token

    def store_upload(self, token: str, content: bytes) -> None:
        """The bytes of an announced upload; may come again, after a broken connection."""
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None:
                raise Refusal(404, "This upload was not announced, or is submitted already")
            if len(content) != upload.size:
                raise Refusal(400, f"{len(content)} bytes came, {upload.size} were announced")
            atomic.write_bytes(self.folder / "uploads" / token, content)
            self._uploads[token] = dataclasses.replace(upload, blob=True)
            self._save()

    def submit(self, token: str, description: str) -> int:
        """Make an uploaded file a submission; its ref.  An upload serves once."""
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None or not upload.blob:
                raise Refusal(400, "Submission not allowed: the file was not uploaded")
            now = self._clock()
            limit = self._settings.daily_limit
            if self._today(now) >= limit:
                hours = (SECONDS_A_DAY - now % SECONDS_A_DAY) / 3600
                raise Refusal(
                    400,
                    f"Submission not allowed: Your team has used its daily Submission allowance ({limit}) "
                    f"today, please try again tomorrow UTC ({hours:.1f} hours from now).",
                )
            content = (self.folder / "uploads" / token).read_bytes()
            submission = Submission(
                ref=FIRST_REF + len(self._submissions),
                time=now,
                file_name=upload.file_name,
                description=description,
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                blob=token,
                outcome=judge(content, self.truth),
            )
            self._submissions.append(submission)
            del self._uploads[token]
            self._save()
        return submission.ref

    def _today(self, now: float) -> int:
        return sum(s.time // SECONDS_A_DAY == now // SECONDS_A_DAY for s in self._submissions)

    # --- looking --------------------------------------------------------------------------------------------

    def submissions(self) -> list[dict[str, Any]]:
        """All submissions as Kaggle shows them now, newest first."""
        with self._lock:
            now = self._clock()
            return [item.shown(self._is_pending(item, now)) for item in reversed(self._submissions)]

    def _is_pending(self, submission: Submission, now: float) -> bool:
        return now < submission.time + self._settings.pending_seconds

    def limits(self) -> tuple[int, int, int]:
        """Submissions made today and ever, and those still allowed today."""
        with self._lock:
            today = self._today(self._clock())
            return today, len(self._submissions), max(0, self._settings.daily_limit - today)

    def best(self) -> dict[str, Any] | None:
        """The submission with the best public score."""
        scored = [s for s in self.submissions() if s["status"] == COMPLETE and s["publicScore"]]
        return max(scored, key=lambda s: float(s["publicScore"]), default=None)
