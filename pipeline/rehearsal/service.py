"""The calls of Kaggle's competition API that the genuine client makes: JSON in, JSON out.

Names and fields are those of kagglesdk's competition_api_service; what it leaves out when it has the
default value is missing here too.
"""

import secrets
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import quote, unquote

from pipeline.rehearsal.catalog import Catalog, ServedFile
from pipeline.rehearsal.replies import Refusal, Reply, json_reply
from pipeline.rehearsal.state import State, timestamp

MAX_PAGE_SIZE = 200
DEFAULT_PAGE_SIZE = 20
USERNAME = "rehearsal"
TEAM_ID = 1

Json = dict[str, Any]


class Service:
    """One competition's API.  `call` raises Refusal for what Kaggle would refuse."""

    def __init__(self, slug: str, catalog: Catalog, state: State) -> None:
        self._slug, self._catalog, self._state = slug, catalog, state
        self._calls: dict[str, Callable[[Json, str], Reply]] = {
            "ListDataFiles": self._list_data_files,
            "DownloadDataFile": self._download_data_file,
            "DownloadDataFiles": self._download_data_files,
            "StartSubmissionUpload": self._start_submission_upload,
            "CreateSubmission": self._create_submission,
            "GetSubmissionLimits": self._get_submission_limits,
            "ListSubmissions": self._list_submissions,
            "GetSubmission": self._get_submission,
            "GetLeaderboard": self._get_leaderboard,
            "IntrospectToken": self._introspect_token,
        }

    def call(self, name: str, request: Json, base: str) -> Reply:
        """Answer the call `name`; `base` is the URL that this server goes by (http://localhost)."""
        if name not in self._calls:
            raise Refusal(501, f"This rehearsal does not serve {name}")
        if "competitionName" in request:
            self._check_slug(request["competitionName"])
        return self._calls[name](request, base)

    def file(self, path: str) -> ServedFile:
        """The file that a download URL stands for; `path` is `SLUG.zip` or `files/NAME`, percent-encoded."""
        folder, _, name = unquote(path).partition("/")
        if folder == f"{self._slug}.zip" and not name:
            return self._catalog.archive()
        file = self._catalog.files().get(name) if folder == "files" else None
        if file is None:
            raise Refusal(404, "No such file")
        return file

    def upload(self, token: str, content: bytes) -> Reply:
        """The PUT of an announced upload."""
        self._state.store_upload(token, content)
        return Reply(200)

    def _check_slug(self, slug: object) -> None:
        if slug != self._slug:
            raise Refusal(404, f"Competition {slug!r} not found: this rehearsal serves {self._slug!r}")

    # --- files ----------------------------------------------------------------------------------------------

    def _list_data_files(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        files = [
            {
                "ref": file.name,
                "name": file.name,
                "totalBytes": file.size,
                "creationDate": timestamp(file.modified),
            }
            for file in self._catalog.files().values()
        ]
        return _page(request, "files", files)

    def _download_data_file(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        name = request.get("fileName", "")
        if name not in self._catalog.files():
            raise Refusal(404, f"Data file {name!r} not found")
        return _signed(f"{base}/storage/files/{quote(name)}")

    def _download_data_files(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        self._catalog.archive()
        return _signed(f"{base}/storage/{self._slug}.zip")

    # --- submissions ----------------------------------------------------------------------------------------

    def _start_submission_upload(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        size, name = request.get("contentLength", 0), request.get("fileName", "")
        if not isinstance(size, int) or not isinstance(name, str) or not name:
            _bad_request("contentLength and fileName are required")
        token = self._state.start_upload(name, size)
        return json_reply({"token": token, "createUrl": f"{base}/upload/{token}"})

    def _create_submission(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        token, description = request.get("blobFileTokens", ""), request.get("submissionDescription") or ""
        ref = self._state.submit(str(token), str(description))
        return json_reply({"message": f"Successfully submitted to {self._slug}", "ref": ref})

    def _get_submission_limits(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        today, total, allowed = self._state.limits()
        return json_reply({"numToday": today, "numTotal": total, "numAllowedNow": allowed, "limitedByTotal": False})

    def _list_submissions(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        return _page(request, "submissions", self._state.submissions())

    def _get_submission(self, request: Json, base: str) -> Reply:
        for submission in self._state.submissions():
            if submission["ref"] == request.get("ref"):
                return json_reply(submission)
        raise Refusal(404, "Submission not found")

    def _get_leaderboard(self, request: Json, base: str) -> Reply:
        self._check_slug(request.get("competitionName"))
        best = self._state.best()
        rows = []
        if best is not None:
            rows.append(
                {
                    "teamId": TEAM_ID,
                    "teamName": best["teamName"],
                    "submissionDate": best["date"],
                    "score": best["publicScore"],
                }
            )
        return _page(request, "submissions", rows)

    # --- accounts -------------------------------------------------------------------------------------------

    def _introspect_token(self, request: Json, base: str) -> Reply:
        return json_reply({"active": True, "username": USERNAME, "userId": TEAM_ID})


def _signed(url: str) -> Reply:
    """A redirect to storage; like Kaggle's, the URL carries a signature and needs no credentials."""
    signature = secrets.token_hex(32)
    return Reply(302, headers={"Location": f"{url}?X-Goog-Expires=345600&X-Goog-Signature={signature}"})


def _page(request: Json, name: str, items: list[Json]) -> Reply:
    """One page of `items`; the token of the next is the number of items before it."""
    size = request.get("pageSize") or DEFAULT_PAGE_SIZE
    token, page = request.get("pageToken") or "", request.get("page") or 1
    if not isinstance(size, int) or not isinstance(page, int) or not str(token).isascii():
        _bad_request("pageSize and page are numbers")
    if token and not str(token).isdecimal():
        _bad_request("Invalid page token")
    size = max(1, min(size, MAX_PAGE_SIZE))
    start = int(token) if token else max(0, page - 1) * size
    rest = len(items) - (start + size)
    return json_reply({name: items[start : start + size], "nextPageToken": str(start + size) if rest > 0 else ""})


def _bad_request(message: str) -> NoReturn:
    raise Refusal(400, message)
