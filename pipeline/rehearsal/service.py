"""The replies of Kaggle's API to the calls of the official client: JSON in, JSON out, and files.

Names and fields are those of kagglesdk's competition_api_service, which omits default values, as we do.
"""

import json
import secrets
import threading
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pipeline.config import fingerprint
from pipeline.kaggle_api import credentials
from pipeline.rehearsal.state import Refusal, State, timestamp
from pipeline.store import atomic, links

BASE = "http://localhost"  # the client reaches us through its proxy
USERNAME, TEAM_ID = "rehearsal", 1
MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE = 200, 20

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An HTTP reply; a file is read while it is sent."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(values: Json, status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(status, json.dumps(values).encode(), {"Content-Type": "application/json; charset=utf-8"})


def file_reply(name: str, path: Path) -> Reply:
    """A file, with the headers that let a client resume: ETag and Accept-Ranges."""
    status = path.stat()
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": f'"{fingerprint([name, status.st_size, status.st_mtime_ns])[:32]}"',
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    return Reply(200, path, headers)


def signed(path: str) -> str:
    """A link to storage: signed like Kaggle's, so it needs no credentials."""
    return f"{BASE}/storage/{quote(path)}?X-Goog-Expires=345600&X-Goog-Signature={secrets.token_hex(32)}"


def page(request: Json, name: str, items: list[Json]) -> Json:
    """One page of `items`; the token of the next is the number of items before it."""
    start = int(request.get("pageToken") or 0)
    stop = start + min(int(request.get("pageSize") or DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE)
    return {name: items[start:stop], "nextPageToken": str(stop) if stop < len(items) else ""}


class Service:
    """The API of one competition, whose files are below `folder`; `cache` keeps their zip.

    `call`, `file` and `upload` raise Refusal if Kaggle would refuse.
    """

    def __init__(self, slug: str, folder: Path, cache: Path, state: State) -> None:
        self.slug, self.folder, self.state = slug, folder, state
        self._zip, self._lock = cache / f"{slug}.zip", threading.Lock()
        self.storage: dict[str, Callable[[], Mapping[str, Path]]] = {  # targets of links
            "files": self.files,
            "zip": lambda: {f"{slug}.zip": self.archive()},
        }
        self.calls: dict[str, Callable[[Json], Reply]] = {
            "ListDataFiles": self._list_data_files,
            "DownloadDataFile": lambda request: Reply(
                302, headers={"Location": signed(f"files/{request['fileName']}")}
            ),
            "DownloadDataFiles": lambda _: Reply(302, headers={"Location": signed(f"zip/{slug}.zip")}),
            "StartSubmissionUpload": self._start_submission_upload,
            "CreateSubmission": self._create_submission,
            "GetSubmissionLimits": self._get_submission_limits,
            "GetSubmission": self._get_submission,
            "ListSubmissions": lambda request: json_reply(page(request, "submissions", state.submissions())),
            "IntrospectToken": lambda _: json_reply({"active": True, "username": USERNAME, "userId": TEAM_ID}),
        }

    def call(self, name: str, request: Json) -> Reply:
        """Reply to the call `name`."""
        if name not in self.calls:
            raise Refusal(400, f"This rehearsal does not serve {name}")
        if (asked := request.get("competitionName", self.slug)) != self.slug:
            raise Refusal(404, f"Competition {asked!r} not found: this rehearsal serves {self.slug!r}")
        return self.calls[name](request)

    def file(self, link: str) -> Reply:
        """The file behind a link: `zip/SLUG.zip` or `files/NAME`, percent-encoded."""
        top, _, name = unquote(link).partition("/")
        files = self.storage[top]() if top in self.storage else {}
        if name not in files:
            raise Refusal(404, "No such file")
        return file_reply(name, files[name])

    def upload(self, token: str, content: bytes) -> Reply:
        """The PUT of an announced upload."""
        self.state.store_upload(token, content)
        return Reply(200)

    def files(self) -> dict[str, Path]:
        """The competition's files by path, with forward slashes; without dot files and credentials."""
        shown = (path for path in links.walk(self.folder, []) if path.is_file() and not path.name.startswith("."))
        files = {path.relative_to(self.folder).as_posix(): path for path in shown}
        return {name: files[name] for name in sorted(files) if files[name].name.lower() not in credentials.FILES}

    def archive(self) -> Path:
        """The zip of all files, written on first use and after changes."""
        with self._lock:
            files = self.files()
            stats = {name: path.stat() for name, path in files.items()}
            version = fingerprint({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}).encode()
            with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(self._zip) as archive:
                if archive.comment == version:
                    return self._zip
            with atomic.replacing(self._zip) as new, zipfile.ZipFile(new, "w", strict_timestamps=False) as archive:
                archive.comment = version
                for name, path in files.items():
                    archive.write(path, name)
            return self._zip

    def _list_data_files(self, request: Json) -> Reply:
        stats = {name: path.stat() for name, path in self.files().items()}
        files = [
            {"ref": name, "name": name, "totalBytes": stat.st_size, "creationDate": timestamp(stat.st_mtime)}
            for name, stat in stats.items()
        ]
        return json_reply(page(request, "files", files))

    def _start_submission_upload(self, request: Json) -> Reply:
        token = self.state.start_upload(str(request.get("fileName")), int(request.get("contentLength", 0)))
        return json_reply({"token": token, "createUrl": f"{BASE}/upload/{token}"})

    def _create_submission(self, request: Json) -> Reply:
        token, description = request.get("blobFileTokens"), request.get("submissionDescription") or ""
        ref = self.state.submit(str(token), str(description))
        return json_reply({"message": f"Successfully submitted to {self.slug}", "ref": ref})

    def _get_submission(self, request: Json) -> Reply:
        for submission in self.state.submissions():
            if submission["ref"] == request.get("ref"):
                return json_reply(submission)
        raise Refusal(404, "Submission not found")

    def _get_submission_limits(self, _: Json) -> Reply:
        today, total, allowed = self.state.limits()
        return json_reply({"numToday": today, "numTotal": total, "numAllowedNow": allowed, "limitedByTotal": False})
