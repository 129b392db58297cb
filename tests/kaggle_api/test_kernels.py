"""The answers of the child process; the genuine client in it meets the stand-in here and in tests/test_kernel.py."""

import json
import time
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied, NetworkError, PipelineError, UsageError
from pipeline.kaggle_api import kernels
from pipeline.kaggle_api.client import Kaggle
from pipeline.kaggle_api.kernels import Found, Output, Pushed, Session
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.support import SLUG

PUSHED = {"version": 2, "error": "", "invalid": []}
REF = "user/my-run"


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script to write, which runs in place of the one with the genuine client."""
    script = tmp_path / "child.py"
    monkeypatch.setattr(kernels, "CHILD", script)
    return script


def answering(script: Path, value: object, **reply: object) -> Kaggle:
    """A Kaggle whose child appends its request to requests.txt, and answers so."""
    text = json.dumps(reply or {"ok": True, "value": value})
    script.write_text(
        "import sys\nwith open(sys.argv[0] + '.requests', 'a') as stream:\n    stream.write(sys.stdin.readline())\n"
        f"print({text!r})\n"
    )
    return Kaggle({"KAGGLE_API_TOKEN": "t"}, attempts=3, sleep=lambda _: None)


def requests(script: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(f"{script}.requests").read_text().splitlines()]


def push(kaggle: Kaggle) -> Pushed:
    return kernels.push(kaggle, Path("folder"), REF, "tiny")


def test_a_push_is_asked_for_once_and_its_version_is_told(child: Path) -> None:
    assert push(answering(child, PUSHED)) == Pushed(2, "", [])
    assert requests(child) == [{"call": "push_kernel", "folder": "folder"}]


def test_a_text_of_refusal_is_passed_on(child: Path) -> None:
    message = "Maximum batch GPU session count of 2 reached.\n"
    with pytest.raises(PipelineError, match=r"did not take the kernel: Maximum batch GPU session .*\\n") as caught:
        push(answering(child, PUSHED | {"error": message}))
    assert caught.value.exit_code == 1


def test_a_competition_that_was_left_out_is_an_error(child: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no files of tiny: .*/competitions/tiny/rules, then push it again with --force"
    ):
        push(answering(child, PUSHED | {"invalid": ["tiny"]}))


@pytest.mark.parametrize(
    ("reply", "unanswered"),
    [
        ({"kind": "http", "status": 500, "message": "", "creating": True}, True),
        ({"kind": "network", "message": "cut", "creating": True}, True),
        ({"kind": "network", "message": "no route", "creating": False}, False),
        ({"kind": "http", "status": 429, "message": "", "creating": True}, False),
    ],
)
def test_a_push_is_never_repeated_and_says_what_is_unknown(
    child: Path, reply: dict[str, object], unanswered: bool
) -> None:
    with pytest.raises(NetworkError) as caught:
        push(answering(child, None, ok=False, **reply))
    assert len(requests(child)) == 1
    assert caught.value.unanswered == unanswered
    assert ("run the same command again, it looks first" in str(caught.value)) == unanswered


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (401, AccessDenied, "refused the credentials in KAGGLE_API_TOKEN"),
        (403, AccessDenied, r"is the kernel at https://www.kaggle.com/code/user/my-run, and your phone verified"),
        (404, UsageError, "is the kernel still at https://www.kaggle.com/code/user/my-run"),
    ],
)
def test_refusals_are_about_the_kernel(child: Path, status: int, error: type[PipelineError], text: str) -> None:
    kaggle = answering(child, None, ok=False, kind="http", status=status, message="no", creating=False)
    with pytest.raises(error, match=text):
        kernels.session(kaggle, REF, 0)


def test_a_reading_call_is_repeated_and_its_answer_typed(child: Path) -> None:
    with pytest.raises(NetworkError):
        kernels.session(answering(child, None, ok=False, kind="network", message="", creating=False), REF, 3)
    assert requests(child) == [{"call": "kernel_session", "user": "user", "name": "my-run", "version": 3}] * 3
    assert kernels.session(answering(child, {"status": "RUNNING", "message": ""}), REF, 3) == Session("RUNNING", "")
    with pytest.raises(NetworkError, match="makes no sense"):
        kernels.session(answering(child, {"status": 7, "message": ""}), REF, 3)


def test_credentials_without_a_name_are_none(child: Path) -> None:
    with pytest.raises(AccessDenied, match="name no user"):
        kernels.find(answering(child, {"user": "", "source": None, "version": 0}), "my-run")


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
    assert kernels.log_lines(answering(child, {"files": [], "log": log}), REF, 1) == lines


# --- the genuine client -------------------------------------------------------------------------------------


def push_script(kaggle: FaultyKaggle, folder: Path, script: str) -> None:
    """Push it as user rehearsal's my-run."""
    metadata = {
        "id": "rehearsal/my-run", "title": "my-run", "code_file": "main.py", "language": "python",
        "kernel_type": "script", "competition_sources": [SLUG],
    }  # fmt: skip
    folder.mkdir()
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata))
    (folder / "main.py").write_text(script)
    kernels.push(Kaggle(kaggle.environment), folder, "rehearsal/my-run", SLUG)


def test_the_genuine_client_brings_what_is_wanted_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    with faulty_kaggle(tmp_path / "source", tmp_path / "state", slug=SLUG) as kaggle:
        client = Kaggle(kaggle.environment, attempts=2, backoff=0.01)
        push_script(kaggle, tmp_path / "pushed", "for n in 'abc': open(n, 'w').write(n * 5000)\nprint('done')\n")
        found = kernels.find(client, "my-run")
        assert found == Found("rehearsal", (tmp_path / "pushed/main.py").read_text(), 1)
        log, end = tmp_path / "state/kernels/my-run/log.txt", time.monotonic() + 30
        while log.read_text() != "done\n" and time.monotonic() < end:
            time.sleep(0.02)
        place = tmp_path / "place"
        place.mkdir()
        kaggle.misbehave("ListKernelSessionOutput:cut=1000*1")
        told: list[int] = []
        came = kernels.output(client, "rehearsal/my-run", 1, {"a": 5000, "b": 5000, "x": 9}, place, told.append)
        assert came == Output(["a", "b"], came.log)
        assert {path.name: path.read_text() for path in place.iterdir()} == {"a": "a" * 5000, "b": "b" * 5000}
        assert kaggle.count("ListKernelSessionOutput") == 2
        with pytest.raises(NetworkError, match=r"has more than 4,999 bytes"):
            kernels.output(client, "rehearsal/my-run", 1, {"c": 4999}, place)
        assert not (place / "c").exists()
