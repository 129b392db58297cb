import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied, NetworkError
from pipeline.kaggle_api import client
from pipeline.kaggle_api.client import Kaggle
from pipeline.rehearsal.state import FIRST_REF, Outcome, Submission
from tests.doubles.kaggle import faulty_kaggle
from tests.support import SLUG

# Every variable that the client may see, spelled out: one more is a decision.
REACHING = {
    "PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP",
    "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "SSL_CERT_FILE", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR",
    "KAGGLE_API_ENVIRONMENT", "KAGGLE_API_V1_TOKEN", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_DATA_PROXY_URL",
}  # fmt: skip
NOT_REACHING = {
    "VERBOSE", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN",
    "PIPELINE_COMPETITION", "LD_PRELOAD", "KAGGLE_USER_SECRETS_TOKEN",
}  # fmt: skip


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script to write, which runs in place of the one with the genuine client."""
    script = tmp_path / "child.py"
    monkeypatch.setattr(client, "CHILD", script)
    return script


def answering(script: Path, reply: dict[str, object]) -> None:
    script.write_text(f"import sys\nsys.stdin.readline()\nprint({json.dumps(reply)!r})\n")


def test_just_these_variables_reach_the_child(child: Path) -> None:
    child.write_text(
        "import json, os, sys\nsys.stdin.readline()\n"
        "found = [{'name': name, 'size': int(value)} for name, value in os.environ.items()]\n"
        "print(json.dumps({'ok': True, 'value': found}))\n"
    )
    environ = {name: str(number) for number, name in enumerate(sorted(REACHING | NOT_REACHING), start=1)}
    found = {file.name: str(file.size) for file in Kaggle(environ).files(SLUG)}
    assert found == {name: environ[name] for name in REACHING}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"KAGGLE_API_TOKEN": "t"}, "KAGGLE_API_TOKEN"),
        ({"KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k"}, "KAGGLE_USERNAME and KAGGLE_KEY"),
        ({}, "kaggle.json"),
    ],
)
def test_refused_credentials_are_named_by_their_place(
    tmp_path: Path, child: Path, environ: dict[str, str], place: str
) -> None:
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle/kaggle.json").write_text('{"username": "u", "key": "k"}')
    answering(child, {"ok": False, "kind": "http", "status": 401, "message": "no"})
    with pytest.raises(AccessDenied) as caught:
        Kaggle({"HOME": str(tmp_path), **environ}).files(SLUG)
    named = str(tmp_path / ".kaggle/kaggle.json") if place == "kaggle.json" else place
    assert str(caught.value).startswith(f"Kaggle refused the credentials in {named} (401): ")


def test_each_new_try_is_told_with_its_reason(child: Path) -> None:
    answering(child, {"ok": False, "kind": "http", "status": 429, "message": "slow down", "retry_after": "7"})
    told: list[str] = []
    slept: list[float] = []
    kaggle = Kaggle({"KAGGLE_API_TOKEN": "t"}, attempts=3, sleep=slept.append, log=told.append)
    with pytest.raises(NetworkError, match="busy or down"):
        kaggle.files(SLUG)
    line = "kaggle: Kaggle is busy or down (429, slow down): try again later; trying again in 7 s"
    assert (told, slept) == ([line] * 2, [7.0] * 2)


def test_all_pages_of_submissions_are_seen_newest_first(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    first = Submission(FIRST_REF, 1.7e9, "s.csv", "", 5, "f" * 64, Outcome("COMPLETE", "0.5", "0.5"))
    count = 401  # three pages of at most 200
    with faulty_kaggle(tmp_path / "source", tmp_path / "state", slug=SLUG) as kaggle:
        kaggle.state.received += [
            dataclasses.replace(first, ref=first.ref + k, time=first.time + k) for k in range(count)
        ]
        found = Kaggle(kaggle.environment).submissions(SLUG)
        assert kaggle.count("ListSubmissions") == 3
    assert [submission.ref for submission in found] == [FIRST_REF + k for k in reversed(range(count))]
    assert [submission.date for submission in found] == sorted((s.date for s in found), reverse=True)


def test_all_pages_of_files_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for k in range(401):
        (source / f"{k:03}").write_bytes(b"x" * k)
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG) as kaggle:
        found = Kaggle(kaggle.environment).files(SLUG)
        assert kaggle.count("ListDataFiles") == 3
    assert [(file.name, file.size) for file in found] == [(f"{k:03}", k) for k in range(401)]
