"""The mock server, spoken to in plain HTTP and by the official client."""

import http.client
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import MissingInput, UsageError
from pipeline.rehearsal.mock import mock_kaggle
from pipeline.rehearsal.server import MockKaggle

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
SLUG = "rehearsal-small"
SERVICE = "/api/v1/competitions.CompetitionApiService/"
CLIENT = Path(sys.executable).with_name("kaggle")


def make_folder(parent: Path) -> Path:
    folder = parent / "small"
    (folder / "below").mkdir(parents=True)
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "below" / "b c.txt").write_text("b")
    (folder / "z.txt").write_text("z")
    return folder


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.reason, self.headers = response.status, response.reason, response.headers
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


@pytest.fixture
def kaggle(tmp_path: Path) -> Iterator[MockKaggle]:
    with mock_kaggle(make_folder(tmp_path), tmp_path / "state") as running:
        yield running


def test_downloads_with_ranges(kaggle: MockKaggle) -> None:
    redirect = call(kaggle, "DownloadDataFile", fileName="a.bin")
    url = redirect.headers["Location"]
    assert redirect.status == 302 and url.split("?")[0] == "http://localhost/storage/files/a.bin"
    whole = ask(kaggle, "GET", url)
    assert (whole.status, whole.body, whole.headers["Accept-Ranges"]) == (200, CONTENT, "bytes")
    part = ask(kaggle, "GET", url, Range="bytes=10000-", If_Range=whole.headers["ETag"])
    assert (part.status, part.body) == (206, CONTENT[10000:])
    assert part.headers["Content-Range"] == "bytes 10000-10239/10240"
    assert ask(kaggle, "GET", url, Range="bytes=10000-", If_Range='"other"').body == CONTENT
    for ignored in ("bytes=-3", "bytes=10240-"):
        assert ask(kaggle, "GET", url, Range=ignored).body == CONTENT
    spaced = call(kaggle, "DownloadDataFile", fileName="below/b c.txt").headers["Location"]
    assert ask(kaggle, "GET", spaced).body == b"b"
    for outside in ("files/..%2Fstate%2Fstate.json", "files/", "other.zip"):
        assert ask(kaggle, "GET", f"/storage/{outside}").status == 404


def test_the_zip_is_made_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    """In the next rehearsal it is still the file that a client has begun to download."""
    folder, etags = make_folder(tmp_path), []
    (folder / "below").rename(tmp_path / "elsewhere")
    (folder / "below").symlink_to(tmp_path / "elsewhere")
    (folder / ".DS_Store").write_text("hidden")
    (folder / "kaggle.json").write_text("a credential")
    for content in ("z", "z", "changed"):
        if content == "changed":
            (folder / "z.txt").write_text(content)
        with mock_kaggle(folder, tmp_path / "state") as kaggle:
            etags.append(ask(kaggle, "GET", call(kaggle, "DownloadDataFiles").headers["Location"]).headers["ETag"])
        with zipfile.ZipFile(tmp_path / f"state/{SLUG}.zip") as opened:
            assert opened.namelist() == ["a.bin", "below/b c.txt", "z.txt"]
            assert opened.read("z.txt") == content.encode()
    assert etags[0] == etags[1] != etags[2]


def test_who_may_not(kaggle: MockKaggle) -> None:
    anonymous = ask(kaggle, "POST", SERVICE + "ListDataFiles", b"{}")
    assert (anonymous.status, anonymous.json["code"]) == (401, 401)
    other = call(kaggle, "ListDataFiles", competitionName="titanic")
    assert other.status == 404
    assert other.json["message"] == f"Competition 'titanic' not found: this rehearsal serves '{SLUG}'"
    assert call(kaggle, "ListCompetitions").status == 400
    for body in (b"[", b"7", b'{"pageToken": "x"}'):
        assert ask(kaggle, "POST", SERVICE + "ListDataFiles", body, Authorization="Bearer x").status == 400
    assert ask(kaggle, "GET", "/nothing").status == 404
    assert ask(kaggle, "PUT", "/upload/unannounced", b"x").status == 404


def test_nothing_else_is_reached(kaggle: MockKaggle) -> None:
    answer = ask(kaggle, "GET", "http://example.com/x")
    assert (answer.status, answer.reason) == (502, "the rehearsal is offline: example.com is not reached")
    assert ask(kaggle, "GET", "http://localhost:99999/x").status == 502
    connection = http.client.HTTPConnection("127.0.0.1", kaggle.port, timeout=10)
    connection.set_tunnel("api.kaggle.com", 443)
    with pytest.raises(OSError, match=r"502 the rehearsal is offline: api\.kaggle\.com is not reached"):
        connection.connect()
    connection.close()
    assert kaggle.calls == ["Offline"] * 3


def test_the_environment_leads_here_and_to_nothing_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"KAGGLE_KEY": "real", "KAGGLE_PROXY": "x", "Http_Proxy": "http://real", "HOME": "/h", "PATH": "/bin"}
    monkeypatch.setattr(os, "environ", base)
    with mock_kaggle(make_folder(tmp_path), tmp_path / "state") as kaggle:
        environment, port = kaggle.environment, kaggle.port
    assert "real" not in "".join(environment.values())
    assert "KAGGLE_PROXY" not in environment
    assert environment["http_proxy"] == environment["HTTPS_PROXY"] == f"http://127.0.0.1:{port}"
    assert environment["PIPELINE_COMPETITION"] == SLUG
    assert environment["HOME"] == "/h" and environment["PATH"].endswith(":/bin")


def test_what_cannot_be_served(tmp_path: Path) -> None:
    folder, state = make_folder(tmp_path), tmp_path / "state"
    labels = folder / "labels.csv"
    labels.write_text("ID,Labels\n0,1\n")
    with pytest.raises(MissingInput, match="--folder"), mock_kaggle(tmp_path / "none", state):
        pass
    with pytest.raises(UsageError, match=r"--state .* would be served"), mock_kaggle(folder, folder / "s"):
        pass
    served = pytest.raises(UsageError, match=r"--labels .* would be served")
    with served, mock_kaggle(folder, state, labels=labels):
        pass
    busy = pytest.raises(UsageError, match="another run is at work")
    with mock_kaggle(folder, state), busy, mock_kaggle(folder, state):
        pass


def test_a_submission_by_hand_is_listed_and_the_users_own_token_stays_at_home(tmp_path: Path) -> None:
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle/access_token").write_text("the-users-own-token")
    labels = tmp_path / "good.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
    with mock_kaggle(make_folder(tmp_path), tmp_path / "state", labels=labels) as kaggle:
        kaggle.state.pending_seconds = 0.0
        environ = {**kaggle.environment, "HOME": str(tmp_path)}
        shown = []
        for command in (f"submit {SLUG} -f good.csv -m hello", f"submissions {SLUG} -v"):
            words = [str(CLIENT), "-W", "competitions", *command.split()]
            shown.append(subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True))
        assert kaggle.calls.count("IntrospectToken") == 2  # with the mock server's token
    assert "19 submissions remaining today" in shown[0].stdout
    assert "good.csv" in shown[1].stdout and "SubmissionStatus.COMPLETE,1.00000,1.00000" in shown[1].stdout
    assert "the-users-own-token" not in (tmp_path / "state/state.json").read_text()
