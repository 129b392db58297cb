"""No secret is shown or kept by whatever fails, and nothing that others wrote reaches the terminal as a command."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.kaggle_api import client, credentials
from pipeline.kaggle_api.client import Kaggle
from pipeline.rehearsal import digits
from tests.hostile.edits import RUN, SIDECAR, Edit, edit, move, nothing, of_run, values
from tests.hostile.known_secrets import OF_KAGGLE, SECRETS, QuotingServer, leaks, quoting_kaggle, way
from tests.hostile.surroundings import copy_project
from tests.support import SLUG, clean_environment, here

pytestmark = pytest.mark.usefixtures("quick_client")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="module")
def kaggle() -> Iterator[QuotingServer]:
    with quoting_kaggle() as server:
        yield server


def everything(cwd: Path, result: "subprocess.CompletedProcess[str]") -> dict[str, bytes]:
    """All that a command said and left behind, hidden files too."""
    files = {str(path.relative_to(cwd)): path.read_bytes() for path in cwd.rglob("*") if path.is_file()}
    return {**files, "stdout": result.stdout.encode(), "stderr": result.stderr.encode()}


# --- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OF_KAGGLE)
def test_each_secret_alone_is_masked_in_a_refusal(kaggle: QuotingServer, home: Path, kind: str) -> None:
    kaggle.status = 403
    with pytest.raises(PipelineError) as caught:
        Kaggle(way(home, kaggle.server_port, kind, "proxy"), attempts=1).submissions(SLUG)
    assert len(leaks({"heard": kaggle.heard[-1].encode()})) == 2  # they were there to be quoted
    assert leaks({"said": repr(caught.value).encode()}) == []
    assert "***" in str(caught.value)


@pytest.mark.parametrize("status", [401, 0])
def test_all_secrets_together_are_masked_in_every_failure(kaggle: QuotingServer, home: Path, status: int) -> None:
    kaggle.status = status
    with pytest.raises(PipelineError) as caught:
        Kaggle(way(home, kaggle.server_port, *SECRETS), attempts=1).submissions(SLUG)
    assert leaks({"said": repr(caught.value).encode()}) == []


@pytest.mark.parametrize("word", ["p%40ss%2Fword-of-the-proxy", "p@ss/word-of-the-proxy"])
def test_a_proxy_that_is_not_there_keeps_its_password(home: Path, word: str) -> None:
    proxy = f"http://somebody:{word}@127.0.0.1:9"
    environ = {**way(home, 9, "KAGGLE_KEY"), "http_proxy": proxy, "https_proxy": proxy}
    with pytest.raises(PipelineError, match="cannot reach Kaggle") as caught:
        Kaggle(environ, attempts=1).files(SLUG)
    assert leaks({"said": repr(caught.value).encode()}) == []


@pytest.mark.parametrize("kind", ["install", "other", "http"])
def test_whatever_the_client_dies_of_is_masked(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    environ = way(home, 9, *SECRETS)
    del environ["AWS_SECRET_ACCESS_KEY"]  # the client never sees it
    said = " ".join(secret for name, secret in SECRETS.items() if not name.startswith("AWS"))
    reply = {"ok": False, "kind": kind, "status": 400, "creating": False, "retry_after": None, "message": said}
    script = tmp_path / "child.py"
    script.write_text(f"import sys\nsys.stdin.readline()\nprint({json.dumps(reply)!r})\n")
    monkeypatch.setattr(client, "CHILD", script)
    with pytest.raises(PipelineError) as caught:
        Kaggle(environ, attempts=1).files(SLUG)
    assert leaks({"said": repr(caught.value).encode()}) == []


@pytest.mark.parametrize(
    ("status", "command"),
    [
        (403, ["download", "--competition", SLUG, "--raw", "elsewhere"]),
        (403, ["submit"]),
        (200, ["check", "--competition", SLUG, "--wait", "0"]),
    ],
)
def test_no_stage_shows_or_keeps_a_secret(
    place: Path, home: Path, kaggle: QuotingServer, status: int, command: list[str]
) -> None:
    kaggle.status = status
    result = here(*command, "--debug", cwd=place, environ=way(home, kaggle.server_port, *SECRETS))
    assert (result.returncode == 0) == (status == 200), result.stderr
    assert SECRETS["KAGGLE_API_TOKEN"] in kaggle.heard[-1]
    assert leaks(everything(place, result)) == []
    assert "***" in result.stdout + result.stderr


def test_predict_keeps_no_secret_of_its_surroundings(place: Path, home: Path) -> None:
    result = here("predict", "--force", cwd=place, environ=way(home, 9, *SECRETS))
    assert result.returncode == 0
    assert leaks(everything(place, result)) == []


def test_run_all_shows_no_secret(tmp_path: Path, home: Path, kaggle: QuotingServer) -> None:
    kaggle.status = 403
    project = tmp_path / "project"
    copy_project(project)
    environ = {**way(home, kaggle.server_port, *SECRETS), "PIPELINE_PYTHON": sys.executable}
    result = subprocess.run(
        ["./run_all.sh", "--competition", SLUG], cwd=project, env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 5, result.stderr
    assert "== download" in result.stdout and "accept its rules" in result.stderr
    assert leaks(everything(project, result)) == []


def test_a_token_may_be_in_a_file_and_short_words_are_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("KGAT_token0in0a0file\n")
    environ = {"HOME": str(tmp_path), "KAGGLE_API_TOKEN": str(tmp_path / "token"), "KAGGLE_KEY": "abc"}
    found = credentials.secrets(environ)
    assert "KGAT_token0in0a0file" in found and "abc" not in found
    kept = credentials.hide({"a": ["KGAT_token0in0a0file!", 1, None]}, found)
    assert kept == {"a": ["***!", 1, None]}


def test_a_short_password_spoils_no_names_and_tags() -> None:
    found = credentials.secrets({"HOME": "/nonexistent", "https_proxy": "http://user:test@127.0.0.1:9"})
    answer = {"name": "cifar_test_nolabel.pkl", "description": "sha=12ab34567890", "error": "test failed"}
    assert credentials.hide([answer], found) == [{**answer, "error": "*** failed"}]


# --- what others wrote ------------------------------------------------------------------------------------------

CLEAR = "\x1b[2J\x1b]0;owned\x07\x9b1m\r\u202e\u2066"  # clears the screen, names the window, goes back, turns round
HOSTILE = f"{CLEAR}\nerror: forged\n{'x' * 5000}"


def must_be_harmless(result: "subprocess.CompletedProcess[str]") -> None:
    """One line remains one line of usual length, and no character commands the terminal."""
    assert "Traceback" not in result.stderr
    for line in (result.stdout + result.stderr).splitlines():
        assert line.isprintable() and len(line) < 1500
        assert not line.startswith("error: forged")


@pytest.mark.parametrize(
    ("status", "command", "code"),
    [
        (403, ["download", "--competition", SLUG, "--raw", "elsewhere"], 5),
        (400, ["submit"], 4),
        (200, ["check", "--competition", SLUG, "--wait", "0"], 0),
    ],
)
def test_what_kaggle_says_commands_no_terminal(
    place: Path, home: Path, kaggle: QuotingServer, monkeypatch: pytest.MonkeyPatch,
    status: int, command: list[str], code: int,
) -> None:  # fmt: skip
    kaggle.status = status
    monkeypatch.setattr(kaggle, "instead", HOSTILE)
    result = here(*command, cwd=place, environ=way(home, kaggle.server_port, "KAGGLE_API_TOKEN"))
    assert result.returncode == code, result.stderr
    must_be_harmless(result)
    assert "\\x1b[2J" in result.stdout + result.stderr


def in_raw(name: str, content: bytes) -> Edit:
    """A file of the download, with other content."""

    def do(place: Path) -> None:
        (place / f"data/raw/{SLUG}/manifest.json").unlink()
        path = place / f"data/raw/{SLUG}/{name}"
        path.unlink()  # a link
        path.write_bytes(content)

    return do


def hostile_archive(place: Path) -> None:
    with zipfile.ZipFile(place / "x.zip", "w") as archive:
        for folder in ("a", "b"):
            archive.writestr(f"{folder}\x1b[2J\u202e/cifar_test_nolabel.pkl", b"")


def hostile_ledger(ledger: bytes) -> bytes:
    """With one more line, in which somebody wrote."""
    line = ledger.decode().splitlines()[-1].split(",")
    line[0], line[2], line[4], line[11] = CLEAR.replace("\r", ""), f"r{CLEAR[:7]}", "7", f"s{CLEAR[:7]}"
    return ledger + ",".join(line).encode() + b"\n"


META = digits.batches_meta(20, [f"{n}{CLEAR[:7]}\n" for n in range(10)])
KEYS = pickle.dumps({HOSTILE: 1, CLEAR.encode(): 2}, protocol=4)


@pytest.mark.parametrize(
    ("does", "command", "code"),
    [
        (in_raw("cifar-10-python/cifar-10-batches-py/batches.meta", META),
         ["preprocess", "--competition", SLUG, "--force"], 0),
        (in_raw("cifar_test_nolabel.pkl", KEYS), ["preprocess", "--competition", SLUG, "--force"], 4),
        (hostile_archive, ["download", "--competition", "other", "--from", "x.zip"], 4),
        (edit("submissions/ledger.csv", hostile_ledger), ["check", "--competition", SLUG], 0),
        (values(f"data/processed/{SLUG}/manifest.json", "facts", class_names=[f"{CLEAR}\n{k}" for k in range(10)]),
         ["predict", "--force"], 0),
        (values(SIDECAR, run=f"a{CLEAR}"), ["submit"], 4),
        (values(SIDECAR, tta=HOSTILE), ["submit"], 4),
        (of_run(values(f"{RUN}/config.json", "config", **{f"{CLEAR}\nerror: forged": 1})), ["predict"], 4),
        (of_run(values(f"{RUN}/config.json", competition=HOSTILE)), ["predict"], 4),
        (edit("data/models/LATEST", lambda _: CLEAR.encode()), ["predict"], 4),
        (move(RUN, f"data/models/t{CLEAR[:4]}"), ["predict", "--run", "t"], 3),
        (nothing, ["sweep", "--search", f"{CLEAR}=1"], 2),
        (nothing, ["submit", "--csv", f"{CLEAR}.csv"], 3),
    ],
)  # fmt: skip
def test_what_a_file_says_commands_no_terminal(place: Path, does: Edit, command: list[str], code: int) -> None:
    does(place)
    result = here(*command, cwd=place, environ=clean_environment() | {"KAGGLE_API_TOKEN": ""})
    assert result.returncode == code, result.stderr
    must_be_harmless(result)


def test_a_trace_commands_no_terminal_either(place: Path) -> None:
    values(SIDECAR, **{CLEAR: 1})(place)
    result = here("submit", "--debug", cwd=place)
    assert "Traceback" in result.stderr and result.stderr.splitlines()[-1].startswith("error: ")
    assert all(line.isprintable() for line in result.stderr.splitlines())
