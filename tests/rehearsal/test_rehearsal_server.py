"""The server, spoken to in plain HTTP; the genuine client has its own tests."""

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import MissingInput, UsageError
from pipeline.rehearsal.mock import MockKaggle, mock_kaggle, slug_of
from pipeline.rehearsal.replies import Refusal, byte_range

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
SLUG = "rehearsal-small"
SERVICE = "/api/v1/competitions.CompetitionApiService/"


def make_folder(parent: Path) -> Path:
    folder = parent / "small"
    (folder / "below").mkdir(parents=True)
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "below" / "b c.txt").write_text("b")
    (folder / "z.txt").write_text("z")
    return folder


@pytest.fixture
def kaggle(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MockKaggle]:
    faults = getattr(request, "param", ())
    with mock_kaggle(make_folder(tmp_path), tmp_path / "state", faults=faults, environ={}) as running:
        yield running


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(kaggle: MockKaggle, method: str, url: str, body: bytes = b"", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", kaggle.port, timeout=10)
    try:
        connection.request(method, url, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def call(kaggle: MockKaggle, name: str, **fields: Any) -> Answer:
    body = json.dumps({"competitionName": SLUG, **fields}).encode()
    return ask(kaggle, "POST", SERVICE + name, body, Authorization="Basic eDp5")


def submit(kaggle: MockKaggle, content: bytes, description: str = "") -> Answer:
    started = call(kaggle, "StartSubmissionUpload", contentLength=len(content), fileName="s.csv").json
    assert ask(kaggle, "PUT", started["createUrl"], content).status == 200
    return call(kaggle, "CreateSubmission", blobFileTokens=started["token"], submissionDescription=description)


def test_files_are_paged(kaggle: MockKaggle) -> None:
    first = call(kaggle, "ListDataFiles", pageSize=2).json
    assert [(file["name"], file["totalBytes"]) for file in first["files"]] == [
        ("a.bin", 10240),
        ("below/b c.txt", 1),
    ]
    second = call(kaggle, "ListDataFiles", pageSize=2, pageToken=first["nextPageToken"]).json
    assert [file["name"] for file in second["files"]] == ["z.txt"]
    assert second["nextPageToken"] == ""
    assert call(kaggle, "ListDataFiles", pageToken="x").status == 400
    assert kaggle.count("ListDataFiles") == 3


def test_submissions_are_paged_newest_first_by_token_and_by_page(kaggle: MockKaggle) -> None:
    refs = [submit(kaggle, b"ID,Labels\n0,1\n").json["ref"] for _ in range(5)]
    page = call(kaggle, "ListSubmissions", page=1, pageSize=2).json
    assert [item["ref"] for item in page["submissions"]] == [refs[4], refs[3]]
    token = page["nextPageToken"]
    page = call(kaggle, "ListSubmissions", page=1, pageSize=2, pageToken=token).json
    assert [item["ref"] for item in page["submissions"]] == [refs[2], refs[1]]
    page = call(kaggle, "ListSubmissions", page=3, pageSize=2).json
    assert [item["ref"] for item in page["submissions"]] == [refs[0]]
    assert call(kaggle, "GetSubmission", ref=refs[1]).json["fileName"] == "s.csv"
    assert call(kaggle, "GetSubmission", ref=1).status == 404
    assert call(kaggle, "GetLeaderboard").json["submissions"] == []
    limits = call(kaggle, "GetSubmissionLimits").json
    assert (limits["numToday"], limits["numTotal"], limits["numAllowedNow"]) == (5, 5, 15)


def test_downloads_with_ranges(kaggle: MockKaggle) -> None:
    redirect = call(kaggle, "DownloadDataFile", fileName="a.bin")
    assert redirect.status == 302
    url = redirect.headers["Location"]
    assert url.split("?")[0].endswith("/a.bin")
    whole = ask(kaggle, "GET", url)
    assert (whole.status, whole.body) == (200, CONTENT)
    assert whole.headers["Accept-Ranges"] == "bytes"
    tag = whole.headers["ETag"]
    part = ask(kaggle, "GET", url, Range="bytes=10000-", If_Range=tag)
    assert (part.status, part.body) == (206, CONTENT[10000:])
    assert part.headers["Content-Range"] == "bytes 10000-10239/10240"
    assert ask(kaggle, "GET", url, Range="bytes=10000-", If_Range='"other"').body == CONTENT
    assert ask(kaggle, "GET", url, Range="bytes=10240-").status == 416
    spaced = call(kaggle, "DownloadDataFile", fileName="below/b c.txt").headers["Location"]
    assert ask(kaggle, "GET", spaced).body == b"b"
    assert call(kaggle, "DownloadDataFile", fileName="../state/state.json").status == 404
    assert ask(kaggle, "GET", "/storage/files/../../state/state.json").status == 404


def test_byte_range() -> None:
    assert byte_range("bytes=2-4", 10) == (2, 5)
    assert byte_range("bytes=-3", 10) == (7, 10)
    assert byte_range("bytes=5-99", 10) == (5, 10)
    for ignored in (None, "bytes=-", "bytes=0-1,3-4", "items=0-1", "bytes=4-2"):
        assert byte_range(ignored, 10) is None
    with pytest.raises(Refusal):
        byte_range("bytes=10-", 10)


def test_who_may_not(kaggle: MockKaggle) -> None:
    anonymous = ask(kaggle, "POST", SERVICE + "ListDataFiles", b"{}")
    assert (anonymous.status, anonymous.json["code"]) == (401, 401)
    other = call(kaggle, "ListDataFiles", competitionName="titanic")
    assert other.status == 404
    assert other.json["message"] == f"Competition 'titanic' not found: this rehearsal serves '{SLUG}'"
    assert call(kaggle, "ListCompetitions").status == 501
    assert ask(kaggle, "POST", SERVICE + "ListDataFiles", b"[", Authorization="Bearer x").status == 400
    assert ask(kaggle, "GET", "/nothing").status == 404
    assert ask(kaggle, "GET", "http://localhost:99999/x").status == 502


def test_nothing_else_is_reached(kaggle: MockKaggle) -> None:
    answer = ask(kaggle, "GET", "http://example.com/x")
    assert answer.status == 502
    assert answer.json["message"] == "the rehearsal is offline: example.com is not reached"
    connection = http.client.HTTPConnection("127.0.0.1", kaggle.port, timeout=10)
    connection.set_tunnel("api.kaggle.com", 443)
    with pytest.raises(OSError, match=r"502 the rehearsal is offline: api\.kaggle\.com is not reached"):
        connection.connect()
    connection.close()
    assert [(item.name, item.detail) for item in kaggle.calls] == [
        ("Offline", "example.com"),
        ("Offline", "api.kaggle.com"),
    ]


def test_chunked_uploads_and_absolute_urls(kaggle: MockKaggle) -> None:
    started = call(kaggle, "StartSubmissionUpload", contentLength=14, fileName="s.csv").json
    connection = http.client.HTTPConnection("127.0.0.1", kaggle.port, timeout=10)
    url = started["createUrl"].replace(f"127.0.0.1:{kaggle.port}", "localhost")
    connection.request("PUT", url, io.BytesIO(b"ID,Labels\n0,1\n"), encode_chunked=True)
    assert connection.getresponse().read() == b""
    connection.request("PUT", url, b"four")  # on the same connection: nothing was left unread
    response = connection.getresponse()
    assert response.status == 400
    assert b"4 bytes came" in response.read()
    connection.close()
    assert "ref" in call(kaggle, "CreateSubmission", blobFileTokens=started["token"]).json


def test_fifty_clients_at_once(kaggle: MockKaggle) -> None:
    url = call(kaggle, "DownloadDataFiles").headers["Location"]
    results: list[int] = []
    start = threading.Barrier(50)

    def client() -> None:
        start.wait()
        answer = ask(kaggle, "GET", url)
        results.append(len(answer.body) if answer.status == 200 else -1)

    threads = [threading.Thread(target=client) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 50
    assert len(set(results)) == 1
    assert results[0] > len(CONTENT)


@pytest.mark.parametrize("kaggle", [["ListDataFiles:status=429,retry=7*1", "ListDataFiles:html*1"]], indirect=True)
def test_fault_answers(kaggle: MockKaggle) -> None:
    busy = call(kaggle, "ListDataFiles")
    assert (busy.status, busy.headers["Retry-After"], busy.json["code"]) == (429, "7", 429)
    page = call(kaggle, "ListDataFiles")
    assert (page.status, page.headers["Content-Type"]) == (502, "text/html; charset=UTF-8")
    assert call(kaggle, "ListDataFiles").status == 200


@pytest.mark.parametrize("kaggle", [["ListDataFiles:loop*1", "ListDataFiles:close*1"]], indirect=True)
def test_faults_that_lead_nowhere(kaggle: MockKaggle) -> None:
    redirect = call(kaggle, "ListDataFiles")
    again = ask(kaggle, "GET", redirect.headers["Location"])
    assert (redirect.status, again.status) == (302, 302)
    assert redirect.headers["Location"] == again.headers["Location"]
    with pytest.raises((http.client.BadStatusLine, OSError)):
        call(kaggle, "ListDataFiles")
    assert call(kaggle, "ListDataFiles").status == 200


def test_faults_in_the_answer_do_not_hinder_the_act(kaggle: MockKaggle) -> None:
    kaggle.misbehave("CreateSubmission:body*1", 'CreateSubmission:fields={"ref": 7, "more": []}*1')
    assert submit(kaggle, b"ID,Labels\n0,1\n").body == b""
    changed = submit(kaggle, b"ID,Labels\n0,1\n")
    assert changed.headers["Content-Type"].startswith("application/json")
    assert changed.json == {"message": f"Successfully submitted to {SLUG}", "ref": 7, "more": []}
    kaggle.misbehave("ListSubmissions:body=<p>")
    assert call(kaggle, "ListSubmissions").body == b"<p>"
    kaggle.misbehave()
    assert call(kaggle, "GetSubmissionLimits").json["numTotal"] == 2


@pytest.mark.parametrize(
    "kaggle",
    [["CreateSubmission:accepted-then=500*1", "CreateSubmission:accepted-then=cut*1", "Upload:cut=5*1"]],
    indirect=True,
)
def test_fault_after_the_act(kaggle: MockKaggle) -> None:
    token = call(kaggle, "StartSubmissionUpload", contentLength=14, fileName="s.csv").json["token"]
    with pytest.raises((http.client.BadStatusLine, OSError)):
        ask(kaggle, "PUT", f"/upload/{token}", b"ID,Labels\n0,1\n")
    assert submit(kaggle, b"ID,Labels\n0,1\n").status == 500
    with pytest.raises((http.client.BadStatusLine, OSError)):
        submit(kaggle, b"ID,Labels\n0,1\n")
    assert submit(kaggle, b"ID,Labels\n0,1\n").status == 200
    assert call(kaggle, "GetSubmissionLimits").json["numTotal"] == 3


@pytest.mark.parametrize(
    "kaggle",
    [
        [
            "DownloadDataFile:cut=100*1",
            "Download:flip=9999*1",
            "DownloadDataFile:flip*1",
            "Download:truncate=50*1",
        ]
    ],
    indirect=True,
)
def test_fault_content(kaggle: MockKaggle) -> None:
    url = call(kaggle, "DownloadDataFile", fileName="a.bin").headers["Location"]
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(kaggle, "GET", url)
    assert cut.value.partial == CONTENT[:100]
    flipped = ask(kaggle, "GET", url, Range="bytes=9000-").body
    assert [i + 9000 for i, byte in enumerate(flipped) if byte != CONTENT[9000 + i]] == [9999]
    assert [i for i, b in enumerate(ask(kaggle, "GET", url).body) if b != CONTENT[i]] == [5120]
    short = ask(kaggle, "GET", url)
    assert (short.headers["Content-Length"], short.body) == ("50", CONTENT[:50])
    assert ask(kaggle, "GET", url).body == CONTENT


def test_stopping_ends_hangs_and_idle_connections(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with mock_kaggle(folder, tmp_path / "state", faults=["ListDataFiles:hang=60"], environ={}) as kaggle:
        idle = socket.create_connection(("127.0.0.1", kaggle.port))

        def quietly() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                call(kaggle, "ListDataFiles")

        hanging = threading.Thread(target=quietly)
        hanging.start()
        while not kaggle.calls:
            time.sleep(0.01)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    hanging.join(5)
    assert not hanging.is_alive()
    idle.close()


def test_the_environment_leads_here_and_to_nothing_real(tmp_path: Path) -> None:
    base = {
        "KAGGLE_KEY": "real",
        "KAGGLE_PROXY": "x",
        "Http_Proxy": "http://real",
        "HOME": "/h",
        "PATH": "/bin",
    }
    with mock_kaggle(make_folder(tmp_path), tmp_path / "state", environ=base) as kaggle:
        environment = kaggle.environment
    assert "real" not in "".join(environment.values())
    assert "KAGGLE_PROXY" not in environment
    assert environment["http_proxy"] == environment["HTTPS_PROXY"] == f"http://127.0.0.1:{kaggle.port}"
    assert environment["no_proxy"] == environment["NO_PROXY"] == ""
    assert environment["KAGGLE_API_ENVIRONMENT"] == "LOCALHOST"
    assert environment["PIPELINE_COMPETITION"] == SLUG
    assert environment["HOME"] == "/h"
    assert environment["PATH"].endswith(":/bin")


def test_folders_that_cannot_be_served(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(MissingInput, match="--folder"), mock_kaggle(missing, tmp_path / "state", environ={}):
            pass
    with (
        pytest.raises(UsageError, match=r"--state .* would be served"),
        mock_kaggle(folder, folder / "state", environ={}),
    ):
        pass
    (folder / "labels.csv").write_text("ID,Labels\n0,1\n")
    with (
        pytest.raises(UsageError, match=r"--labels .* would be served"),
        mock_kaggle(folder, tmp_path / "state", labels=folder / "labels.csv", environ={}),
    ):
        pass


def test_one_memory_serves_one_rehearsal_at_a_time(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with (
        mock_kaggle(folder, tmp_path / "state", environ={}),
        pytest.raises(UsageError, match="another run is at work"),
        mock_kaggle(folder, tmp_path / "state", environ={}),
    ):
        pass


def test_slug_of(tmp_path: Path) -> None:
    assert slug_of(tmp_path / "Deep Learning_2025") == "rehearsal-deep-learning-2025"
    assert slug_of(Path("/")) == "rehearsal-folder"
