import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import AccessDenied, BadData, NetworkError, PipelineError, SubmissionLimit, UsageError
from pipeline.kaggle_api import client
from pipeline.kaggle_api.client import Kaggle, Limits, RemoteFile
from tests.doubles.kaggle import faulty_kaggle
from tests.support import SLUG

NOT_REACHING = {
    "VERBOSE", "KAGGLE_USERNAME", "PYTHONSTARTUP", "PYTHONHOME", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN",
    "PIPELINE_COMPETITION", "LD_PRELOAD", "KAGGLE_USER_SECRETS_TOKEN",
}  # fmt: skip
CERTIFICATES = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"}  # are looked at beforehand
KERNEL = "user/my-run"
LIMITS = {"today": 1, "total": 2, "allowed": 3, "by_total": False}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script to write, which runs in place of the one with the official client."""
    script = tmp_path / "child.py"
    monkeypatch.setattr(client, "CHILD", script)
    return script


def answering(script: Path, value: object = None, **refusal: object) -> Kaggle:
    """A Kaggle whose child keeps its requests in requests.txt, and answers so."""
    text = json.dumps({"ok": False, "creating": False, "message": "m", **refusal} if refusal
                      else {"ok": True, "value": value})  # fmt: skip
    script.write_text(
        "import sys\nwith open(sys.argv[0] + '.requests', 'a') as stream:\n    stream.write(sys.stdin.readline())\n"
        f"print({text!r})\n"
    )
    return Kaggle({"KAGGLE_API_TOKEN": "t"}, attempts=3, sleep=lambda _: None)


def requests(script: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(f"{script}.requests").read_text().splitlines()]


def submit(kaggle: Kaggle) -> int:
    return kaggle.submit(SLUG, Path("s.csv"), "message")


def push(kaggle: Kaggle) -> int:
    return kaggle.push_kernel(Path("folder"), KERNEL, SLUG)


# --- the child process ------------------------------------------------------------------------------------------


def test_no_other_variables_reach_the_child(child: Path) -> None:
    child.write_text(
        "import json, os, sys\nsys.stdin.readline()\n"
        "print(json.dumps({'ok': True, 'value': [{'name': name, 'size': 1} for name in os.environ]}))\n"
    )
    credentials = {"KAGGLE_API_TOKEN": "t"}
    environ = dict.fromkeys(client.PASSED_ON - CERTIFICATES | NOT_REACHING, "1") | credentials
    reached = {file.name for file in Kaggle(environ).files(SLUG)}
    assert reached == client.PASSED_ON - CERTIFICATES | {*credentials, "KAGGLE_CONFIG_DIR", "PYTHONPATH"}


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("import time\ntime.sleep(60)\n", r"did not answer within 1 s: try again later, or raise --timeout"),
        ("raise SystemExit(3)\n", r"ended without a reply \(exit code 3\): try again"),
    ],
)
def test_a_child_that_hangs_or_dies_may_have_submitted(child: Path, script: str, text: str) -> None:
    child.write_text(script)
    with pytest.raises(NetworkError, match=text) as caught:
        submit(Kaggle({"KAGGLE_API_TOKEN": "t"}, timeout=0.5, upload_timeout=1))
    assert caught.value.unanswered


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Limits, LIMITS | changed) for changed in
     ({"today": "1"}, {"today": -1}, {"today": 2**63}, {"today": True}, {"by_total": 1}, {"\n" * 1000: 1})]
    + [(list[RemoteFile], value) for value in (None, {"name": "a"}, [7])],
)  # fmt: skip
def test_what_has_the_wrong_type_is_a_network_error_of_one_line(kind: type[Any], value: object) -> None:
    assert client.typed(Limits, LIMITS) == Limits(1, 2, 3, by_total=False)
    with pytest.raises(NetworkError, match="makes no sense to its client") as caught:
        client.typed(kind, value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("ref", [0, -5, "7"])
def test_a_submission_without_a_ref_may_have_arrived(child: Path, ref: object) -> None:
    with pytest.raises(NetworkError) as caught:
        submit(answering(child, {"number": ref, "error": ""}))
    assert caught.value.unanswered
    assert len(requests(child)) == 1


def test_a_failed_upload_has_not_arrived(child: Path) -> None:
    with pytest.raises(NetworkError, match=r"s\.csv could not be uploaded") as caught:
        submit(answering(child, {"number": 0, "error": "Could not submit to competition"}))
    assert not caught.value.unanswered


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ({"number": 0, "error": "Maximum GPU session count of 2 reached.\n"}, PipelineError,
         r"refused the kernel: Maximum GPU session count of 2 reached.\\n"),
        ({"number": 2, "error": "", "invalid": ["tiny"]}, UsageError,
         r"no files of tiny: .*/competitions/tiny/rules, then push it again with --force"),
        ({"number": "2"}, NetworkError, "makes no sense"),
    ],
)  # fmt: skip
def test_a_kernel_that_kaggle_does_not_take(child: Path, value: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        push(answering(child, value))
    assert requests(child) == [{"call": "push_kernel", "folder": "folder"}]


def test_credentials_without_a_name_own_no_kernel(child: Path) -> None:
    assert answering(child, "me").username() == "me"
    with pytest.raises(
        AccessDenied, match=r"do not name the user.*: create a token at https://www.kaggle.com/settings"
    ):
        answering(child, "").username()


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ("one\n\ntwo\x1b[2J\n", ["one", "two\\x1b[2J"]),
        (json.dumps([{"stream_name": "stdout", "data": "a\nb"}, {"data": "c\n"}]), ["a", "bc"]),
        (json.dumps({"data": "x"}), ['{"data": "x"}']),
        ("[7]", ["[7]"]),
        ("", []),
    ],
)
def test_a_log_has_lines_in_whatever_form_it_comes(child: Path, log: str, lines: list[str]) -> None:
    assert answering(child, log).kernel_log(KERNEL) == lines


# --- refusals ---------------------------------------------------------------------------------------------------

SETTINGS = r": create a token at https://www\.kaggle\.com/settings \(API\) and put it\s+into ~/\.kaggle/access_token"
REFUSALS: list[tuple[dict[str, object], type[PipelineError], str]] = [
    ({"kind": "http", "status": 400}, BadData, r"refused the request \(400, m\)"),
    ({"kind": "http", "status": 400, "message": "Your team has used its daily Submission allowance (5) today"},
     SubmissionLimit, r"the limit resets at 00:00 UTC"),
    ({"kind": "http", "status": 401}, AccessDenied, r"refused the credentials in KAGGLE_API_TOKEN \(401\)" + SETTINGS),
    ({"kind": "http", "status": 403}, AccessDenied,
     r"join the competition and accept its rules at https://www\.kaggle\.com/competitions/tiny/rules"),
    ({"kind": "http", "status": 404}, UsageError, r"is --competition tiny spelled right\?"),
    ({"kind": "http", "status": 408}, NetworkError, r"busy or down \(408, m\): try again later"),
    ({"kind": "http", "status": 429}, NetworkError, r"busy or down \(429, m\): try again later"),
    ({"kind": "http", "status": 503}, NetworkError, r"busy or down \(503, m\): try again later"),
    ({"kind": "storage", "status": 403}, NetworkError, r"does not lead to the file .*: run again, for a new link"),
    ({"kind": "network"}, NetworkError, r"cannot reach Kaggle \(m\): check the network and run again"),
    ({"kind": "other"}, NetworkError, r"makes no sense .*: try again later; if it persists, pip install -U kaggle"),
    ({"kind": "disk"}, PipelineError, r"refused the kaggle client \(m\): free space, or check permissions"),
    ({"kind": "install"}, PipelineError, r"does not load \(m\):\n  pip install -r requirements\.txt"),
    ({"kind": "credentials"}, AccessDenied, r"does not accept the credentials in KAGGLE_API_TOKEN \(m\)" + SETTINGS),
    ({"kind": "usage"}, UsageError, "m"),
]  # fmt: skip


@pytest.mark.parametrize("creating", [False, True])
@pytest.mark.parametrize(("reply", "error", "text"), REFUSALS)
def test_each_refusal_names_its_cure_and_whether_kaggle_may_carry_it_out(
    reply: dict[str, object], error: type[PipelineError], text: str, creating: bool
) -> None:
    answer = {"message": "m", "creating": creating, **reply}
    found = client.refusal(SLUG, "KAGGLE_API_TOKEN", answer)
    assert re.search(text, str(found))
    open_answers = {("network", None), ("other", None), ("usage", None), ("storage", 403), ("http", 408), ("http", 503)}
    expected = creating and (reply["kind"], reply.get("status")) in open_answers
    assert type(found) is (NetworkError if expected else error)
    assert getattr(found, "unanswered", False) == expected


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, r"is the kernel at https://www.kaggle.com/code/user/my-run, and your phone verified"),
        (404, r"is https://www.kaggle.com/code/user/my-run spelled right\?"),
    ],
)
def test_a_kernels_refusal_is_about_the_kernel(child: Path, status: int, text: str) -> None:
    with pytest.raises(PipelineError, match=text):
        answering(child, kind="http", status=status).kernel_status(f"{KERNEL}/3")


# --- trying again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "waits"), [("7", 7.0), ("9999", 300.0)])
def test_a_reading_call_is_repeated_as_retry_after_says_and_each_try_logged(
    child: Path, asked: str, waits: float
) -> None:
    logged: list[str] = []
    slept: list[float] = []
    busy = answering(child, kind="http", status=429, message="slow down", retry_after=asked)
    kaggle = dataclasses.replace(busy, sleep=slept.append, log=logged.append)
    with pytest.raises(NetworkError, match="busy or down"):
        kaggle.files(SLUG)
    line = f"kaggle: Kaggle is busy or down (429, slow down); trying again in {waits:.0f} s"
    assert (logged, slept) == ([line] * 2, [waits] * 2)
    assert len(requests(child)) == 3


def test_without_retry_after_the_waits_grow(child: Path) -> None:
    slept: list[float] = []
    kaggle = dataclasses.replace(answering(child, kind="network"), sleep=slept.append, backoff=2.0, attempts=4)
    with pytest.raises(NetworkError):
        kaggle.limits(SLUG)
    assert [low <= wait <= low + 2 for low, wait in zip((2, 4, 8), slept, strict=True)] == [True] * 3


@pytest.mark.parametrize("create", [submit, push])
@pytest.mark.parametrize("status", [429, 500])
def test_what_creates_something_is_never_repeated(child: Path, status: int, create: Callable[[Kaggle], int]) -> None:
    with pytest.raises(NetworkError) as caught:
        create(answering(child, kind="http", status=status, creating=True))
    assert len(requests(child)) == 1
    assert caught.value.unanswered == (status == 500)


# --- the official client -----------------------------------------------------------------------------------------


def test_all_pages_of_files_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for k in range(401):
        (source / f"{k:03}").write_bytes(b"x" * k)
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG) as kaggle:
        found = Kaggle(kaggle.environment).files(SLUG)
        assert kaggle.calls.count("ListDataFiles") == 3
    assert [(file.name, file.size) for file in found] == [(f"{k:03}", k) for k in range(401)]
