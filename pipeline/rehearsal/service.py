"""The calls of Kaggle's API that the genuine client makes: JSON in, JSON out.

Names and fields are those of kagglesdk's competition_api_service, and of its kernels_api_service
(pipeline.rehearsal.kernels); what it leaves out when it has the default value is missing here too.
"""

from collections.abc import Callable
from urllib.parse import quote, unquote

from pipeline.rehearsal.catalog import Catalog, ServedFile
from pipeline.rehearsal.kernels import KERNELS, Kernels
from pipeline.rehearsal.replies import USERNAME, Json, Refusal, Reply, bad_request, json_reply, page, signed
from pipeline.rehearsal.state import State, timestamp

TEAM_ID = 1


class Service:
    """One competition's API.  `call` raises Refusal for what Kaggle would refuse."""

    def __init__(self, slug: str, catalog: Catalog, state: State, kernels: Kernels) -> None:
        self._slug, self._catalog, self._state, self._kernels = slug, catalog, state, kernels
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
            "GetKernel": lambda request, _: kernels.get(request),
            "SaveKernel": lambda request, _: kernels.save(request),
            "GetKernelSessionStatus": lambda request, _: kernels.status(request),
            "ListKernelSessionOutput": kernels.output,
        }

    def call(self, name: str, request: Json, base: str) -> Reply:
        """Answer the call `name`; `base` is the URL that this server goes by (http://localhost)."""
        if name not in self._calls:
            raise Refusal(501, f"This rehearsal does not serve {name}")
        if "competitionName" in request:
            self._check_slug(request["competitionName"])
        return self._calls[name](request, base)

    def file(self, path: str) -> ServedFile:
        """The file that a link stands for; `path` is `SLUG.zip`, `files/NAME` or `kernels/NAME`, percent-encoded."""
        if path.startswith(KERNELS):
            return self._kernels.file(unquote(path.removeprefix(KERNELS)))
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
        return page(request, "files", files)

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
            bad_request("contentLength and fileName are required")
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
        return page(request, "submissions", self._state.submissions())

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
        return page(request, "submissions", rows)

    # --- accounts -------------------------------------------------------------------------------------------

    def _introspect_token(self, request: Json, base: str) -> Reply:
        return json_reply({"active": True, "username": USERNAME, "userId": TEAM_ID})


def _signed(url: str) -> Reply:
    """A redirect to storage."""
    return Reply(302, headers={"Location": signed(url)})
