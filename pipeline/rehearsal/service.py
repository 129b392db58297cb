"""What Kaggle's API answers to the calls that the genuine client makes: JSON in, JSON out, and files.

Names and fields are those of kagglesdk's competition_api_service; what it leaves out when it has the default value is
missing here too.
"""

import hashlib
import json
import os
import secrets
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pipeline.config import fingerprint
from pipeline.kaggle_api import credentials
from pipeline.rehearsal.state import Refusal, State, timestamp
from pipeline.store import atomic

USERNAME, TEAM_ID = "rehearsal", 1
MAX_PAGE_SIZE = 200
DEFAULT_PAGE_SIZE = 20
CHUNK = 256 * 1024  # bytes read from disk at once

Json = dict[str, Any]


# --- answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """An HTTP answer.  A file is read while it is sent, never as a whole."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The body's bytes from `start` to before `stop`."""
        if isinstance(self.body, bytes):
            yield self.body[start:stop]
            return
        with self.body.open("rb") as stream:
            stream.seek(start)
            while start < stop and (chunk := stream.read(min(CHUNK, stop - start))):
                start += len(chunk)
                yield chunk


def json_reply(values: Json, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(values).encode(), {"Content-Type": "application/json; charset=utf-8"})


def file_reply(name: str, path: Path) -> Reply:
    """A file, with what lets a client resume: its identity (ETag), and that parts can be had."""
    status = path.stat()
    identity = hashlib.sha256(f"{name}\n{status.st_size}\n{status.st_mtime_ns}".encode()).hexdigest()
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": f'"{identity[:32]}"',
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    return Reply(200, path, headers)


def redirect(url: str) -> Reply:
    """To a file in storage."""
    return Reply(302, headers={"Location": signed(url)})


def signed(url: str) -> str:
    """A link to storage: like Kaggle's it carries a signature, and needs no credentials."""
    return f"{url}?X-Goog-Expires=345600&X-Goog-Signature={secrets.token_hex(32)}"


def page(request: Json, name: str, items: list[Json]) -> Json:
    """One page of `items`; the token of the next is the number of items before it."""
    size = request.get("pageSize") or DEFAULT_PAGE_SIZE
    token, number = str(request.get("pageToken") or ""), request.get("page") or 1
    if not isinstance(size, int) or not isinstance(number, int):
        raise Refusal(400, "pageSize and page are numbers")
    if token and not (token.isascii() and token.isdecimal()):
        raise Refusal(400, "Invalid page token")
    size = max(1, min(size, MAX_PAGE_SIZE))
    start = int(token) if token else max(0, number - 1) * size
    stop = start + size
    return {name: items[start:stop], "nextPageToken": str(stop) if stop < len(items) else ""}


# --- files --------------------------------------------------------------------------------------------------


class Catalog:
    """The regular files below `folder`, but for hidden ones and credentials; their zip is kept in `cache`."""

    def __init__(self, slug: str, folder: Path, cache: Path) -> None:
        self.folder = folder
        self._zip = cache / f"{slug}.zip"
        self._lock = threading.Lock()

    def files(self) -> dict[str, Path]:
        """What there is now, by its path in the download, with forward slashes."""
        found = {}
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(parent, name) for name in names):
                if not path.name.startswith(".") and path.name.lower() not in credentials.FILES and path.is_file():
                    found[path.relative_to(self.folder).as_posix()] = path
        return dict(sorted(found.items()))

    def archive(self) -> Path:
        """The zip of all files, written when it is first asked for or when the files have changed."""
        with self._lock:
            files = self.files()
            stats = {name: path.stat() for name, path in files.items()}
            version = fingerprint({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}).encode()
            if self._zipped_version() != version:
                self._write_zip(files, version)
            return self._zip

    def _write_zip(self, files: Mapping[str, Path], version: bytes) -> None:
        with (
            atomic.replacing(self._zip) as temporary,
            zipfile.ZipFile(temporary, "w", strict_timestamps=False) as archive,
        ):
            archive.comment = version
            for name, path in files.items():
                archive.write(path, name)

    def _zipped_version(self) -> bytes | None:
        """The files' fingerprint when they were zipped: the zip's comment."""
        try:
            with zipfile.ZipFile(self._zip) as archive:
                return archive.comment
        except (OSError, zipfile.BadZipFile):
            return None


# --- calls --------------------------------------------------------------------------------------------------


class Service:
    """One competition's API.  `call`, `file` and `upload` raise Refusal for what Kaggle would refuse."""

    def __init__(self, slug: str, catalog: Catalog, state: State) -> None:
        self.slug, self.catalog, self.state = slug, catalog, state
        self.calls: dict[str, Callable[[Json, str], Reply]] = {
            "ListDataFiles": self._list_data_files,
            "DownloadDataFile": self._download_data_file,
            "DownloadDataFiles": lambda _, base: redirect(f"{base}/storage/{slug}.zip"),
            "StartSubmissionUpload": self._start_submission_upload,
            "CreateSubmission": self._create_submission,
            "GetSubmissionLimits": self._get_submission_limits,
            "ListSubmissions": lambda request, _: json_reply(page(request, "submissions", state.submissions())),
            "GetSubmission": self._get_submission,
            "IntrospectToken": lambda *_: json_reply({"active": True, "username": USERNAME, "userId": TEAM_ID}),
        }

    def call(self, name: str, request: Json, base: str) -> Reply:
        """Answer the call `name`; `base` is the URL that this server goes by (http://localhost)."""
        if name not in self.calls:
            raise Refusal(501, f"This rehearsal does not serve {name}")
        if (asked := request.get("competitionName", self.slug)) != self.slug:
            raise Refusal(404, f"Competition {asked!r} not found: this rehearsal serves {self.slug!r}")
        return self.calls[name](request, base)

    def file(self, link: str) -> Reply:
        """The file that a link stands for: `SLUG.zip` or `files/NAME`, percent-encoded."""
        folder, _, name = unquote(link).partition("/")
        if folder == f"{self.slug}.zip" and not name:
            return file_reply(folder, self.catalog.archive())
        path = self.catalog.files().get(name) if folder == "files" else None
        if path is None:
            raise Refusal(404, "No such file")
        return file_reply(name, path)

    def upload(self, token: str, content: bytes) -> Reply:
        """The PUT of an announced upload."""
        self.state.store_upload(token, content)
        return Reply(200)

    def _list_data_files(self, request: Json, base: str) -> Reply:
        files: list[Json] = []
        for name, path in self.catalog.files().items():
            stat = path.stat()
            files.append(
                {"ref": name, "name": name, "totalBytes": stat.st_size, "creationDate": timestamp(stat.st_mtime)}
            )
        return json_reply(page(request, "files", files))

    def _download_data_file(self, request: Json, base: str) -> Reply:
        name = request.get("fileName", "")
        if name not in self.catalog.files():
            raise Refusal(404, f"Data file {name!r} not found")
        return redirect(f"{base}/storage/files/{quote(name)}")

    def _start_submission_upload(self, request: Json, base: str) -> Reply:
        size, name = request.get("contentLength", 0), request.get("fileName", "")
        if not isinstance(size, int) or not isinstance(name, str) or not name:
            raise Refusal(400, "contentLength and fileName are required")
        token = self.state.start_upload(name, size)
        return json_reply({"token": token, "createUrl": f"{base}/upload/{token}"})

    def _create_submission(self, request: Json, base: str) -> Reply:
        token, description = request.get("blobFileTokens", ""), request.get("submissionDescription") or ""
        ref = self.state.submit(str(token), str(description))
        return json_reply({"message": f"Successfully submitted to {self.slug}", "ref": ref})

    def _get_submission_limits(self, request: Json, base: str) -> Reply:
        today, total, allowed = self.state.limits()
        return json_reply({"numToday": today, "numTotal": total, "numAllowedNow": allowed, "limitedByTotal": False})

    def _get_submission(self, request: Json, base: str) -> Reply:
        for submission in self.state.submissions():
            if submission["ref"] == request.get("ref"):
                return json_reply(submission)
        raise Refusal(404, "Submission not found")
