"""No secret is shown or kept by whatever fails, and nothing that others wrote reaches the terminal as a command."""

import base64
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from pipeline.errors import PipelineError
from pipeline.kaggle_api import client, credentials
from pipeline.kaggle_api.client import Kaggle
from tests.doubles import cpickle
from tests.doubles.kaggle import FaultyKaggle
from tests.hostile.edits import RUN, SIDECAR, Edit, edit, move, nothing, of_run, values
from tests.readme import fresh_project
from tests.support import SLUG, clean_environment, here, predicted_place, serve

pytestmark = pytest.mark.usefixtures("quick_client")

# --- every kind of secret that may be in reach of a command, and a Kaggle that says them --------------------------

USER = "somebody"
SECRETS = {  # by kind: the text that must appear nowhere
    "KAGGLE_API_TOKEN": "KGAT_token0in0the0environment",
    ".kaggle/access_token": "KGAT_token0in0a0file",
    "KAGGLE_KEY": "0123456789abcdef-key-in-the-environment",
    ".kaggle/kaggle.json": "0123456789abcdef-key-in-the-file",
    "elsewhere/kaggle.json": "0123456789abcdef-key-in-another-folder",
    ".kaggle/credentials.json": "oauth-refresh-token-0123456789",
    "proxy": "p@ss/word-of-the-proxy",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+of0somebody",
}
OF_KAGGLE = [kind for kind in SECRETS if kind not in ("proxy", "AWS_SECRET_ACCESS_KEY")]


def reach(home: Path, kaggle: FaultyKaggle, *kinds: str) -> dict[str, str]:
    """An environment with these secrets alone, in which the official client asks `kaggle`."""
    proxy = kaggle.environment["http_proxy"]
    environ = {**clean_environment(), "HOME": str(home), "http_proxy": proxy, "https_proxy": proxy, "no_proxy": "",
               "KAGGLE_API_ENVIRONMENT": "LOCALHOST"}  # fmt: skip
    for kind in kinds:
        secret, path = SECRETS[kind], home / kind
        if kind == "proxy":
            with_password = proxy.replace("//", f"//{USER}:{quote(secret, safe='')}@")
            environ |= {"http_proxy": with_password, "https_proxy": with_password}
        elif "/" not in kind:
            environ |= {kind: secret} | ({"KAGGLE_USERNAME": USER} if kind == "KAGGLE_KEY" else {})
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            key = "refresh_token" if path.name == "credentials.json" else "key"
            path.write_text(secret if path.suffix != ".json" else json.dumps({key: secret, "username": USER}))
            path.chmod(0o600)
            environ |= {"KAGGLE_CONFIG_DIR": str(path.parent)} if "elsewhere" in kind else {}
    return environ


def forms(kind: str) -> list[str]:
    """A secret, plain and as it travels."""
    secret = SECRETS[kind]
    return [secret, quote(secret, safe=""), base64.b64encode(f"{USER}:{secret}".encode()).decode()]


def leaks(*texts: str | bytes) -> list[str]:
    """Which secrets are in the texts."""
    whole = b"\n".join(text.encode() if isinstance(text, str) else text for text in texts)
    return [kind for kind in SECRETS if any(form.encode() in whole for form in forms(kind))]


def everything(cwd: Path, result: "subprocess.CompletedProcess[str]") -> list[str | bytes]:
    """All that a command said and left behind, hidden files too."""
    kept = (path for path in cwd.rglob("*") if path.is_file() and path.name != "state.json")  # (that is Kaggle's)
    return [result.stdout, result.stderr, *(path.read_bytes() for path in kept)]


def saying(said: str, status: int = 403) -> list[str]:
    """A Kaggle whose refusals, or lists (status 200), or answers that are no JSON (status 0), say that."""
    body = json.dumps({"code": status, "message": f"You sent {said}"}) if status else said
    if status == 200:
        entry = {"ref": 7, "status": "error", "errorDescription": said, "description": said, "fileName": said}
        body = json.dumps({"submissions": [{**entry, "date": "2026-01-01T00:00:00Z", "totalBytes": 5}]})
    return [f"{call}:body={body}" for call in ("ListDataFiles", "ListSubmissions", "GenerateAccessToken")]


EVERY_SECRET = " ".join(form for kind in OF_KAGGLE for form in forms(kind))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyKaggle]:
    with serve(predicted_place(tmp_path_factory.mktemp("kaggle"))) as kaggle:
        yield kaggle


def refusal(environ: dict[str, str]) -> str:
    """With which words a call ends."""
    with pytest.raises(PipelineError) as caught:
        Kaggle(environ, attempts=1).submissions(SLUG)
    return repr(caught.value)


# --- secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OF_KAGGLE)
def test_each_secret_alone_is_masked_in_a_refusal(kaggle: FaultyKaggle, home: Path, kind: str) -> None:
    kaggle.misbehave(*saying(" ".join(forms(kind) + forms("proxy"))))
    said = refusal(reach(home, kaggle, kind, "proxy"))
    assert leaks(said) == [] and "You sent ***" in said


@pytest.mark.parametrize("word", ["p%40ss%2Fword-of-the-proxy", "p@ss/word-of-the-proxy"])
def test_a_proxy_that_is_not_there_keeps_its_password(kaggle: FaultyKaggle, home: Path, word: str) -> None:
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), f"http://somebody:{word}@127.0.0.1:9")
    said = refusal({**reach(home, kaggle, "KAGGLE_KEY"), **proxy})
    assert "cannot reach Kaggle" in said and leaks(said) == []


def test_whatever_the_client_dies_of_is_masked(
    tmp_path: Path, home: Path, kaggle: FaultyKaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = {"ok": False, "kind": "install", "creating": False, "message": EVERY_SECRET}
    (tmp_path / "child.py").write_text(f"import sys\nsys.stdin.readline()\nprint({json.dumps(reply)!r})\n")
    monkeypatch.setattr(client, "CHILD", tmp_path / "child.py")
    assert leaks(refusal(reach(home, kaggle, *OF_KAGGLE))) == []


STAGES: dict[str, tuple[int, list[str]]] = {  # what Kaggle answers to it
    "download": (403, ["download", "--competition", SLUG, "--raw", "elsewhere"]),
    "submit": (400, ["submit"]),
    "check": (200, ["check", "--competition", SLUG, "--wait", "0", "--verbose"]),
}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_shows_or_keeps_a_secret(place: Path, home: Path, kaggle: FaultyKaggle, stage: str) -> None:
    status, command = STAGES[stage]
    kaggle.misbehave(*saying(EVERY_SECRET, status))
    result = here(*command, "--debug", cwd=place, environ=reach(home, kaggle, *SECRETS))
    assert (result.returncode == 0) == (status == 200), result.stderr
    assert leaks(*everything(place, result)) == []
    assert "***" in result.stdout + result.stderr


def test_predict_keeps_no_secret_of_its_surroundings(place: Path, home: Path, kaggle: FaultyKaggle) -> None:
    result = here("predict", "--force", cwd=place, environ=reach(home, kaggle, *SECRETS))
    assert result.returncode == 0
    assert leaks(*everything(place, result)) == []


def test_run_all_shows_no_secret(tmp_path: Path, home: Path, kaggle: FaultyKaggle) -> None:
    project = fresh_project(tmp_path / "project")
    kaggle.misbehave(*saying(EVERY_SECRET))
    environ = {**reach(home, kaggle, *SECRETS), "PIPELINE_PYTHON": sys.executable}
    result = subprocess.run(
        ["./run_all.sh", "--competition", SLUG], cwd=project, env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 5, result.stderr
    assert "download: " in result.stderr and "accept its rules" in result.stderr
    assert leaks(*everything(project, result)) == []


def test_a_token_may_be_in_a_file_and_short_words_spoil_no_names(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("KGAT_token0in0a0file\n")
    environ = {"HOME": str(tmp_path), "KAGGLE_API_TOKEN": str(tmp_path / "token"), "KAGGLE_KEY": "abc",
               "https_proxy": "http://user:test@127.0.0.1:9"}  # fmt: skip
    answer = {"name": "cifar_test_nolabel.pkl", "description": "sha=12ab34567890", "error": "test failed, abc"}
    found = credentials.secrets(environ)
    assert credentials.hide([answer], found) == [{**answer, "error": "*** failed, abc"}]
    assert credentials.hide({"a": ["KGAT_token0in0a0file!", 1, None]}, found) == {"a": ["***!", 1, None]}


# --- what others wrote ------------------------------------------------------------------------------------------

CLEAR = "\x1b[2J\x1b]0;owned\x07\x9b1m\r\u202e\u2066"  # clears the screen, names the window, goes back, turns round
HOSTILE = f"{CLEAR}\nerror: forged\n{'x' * 5000}"


def must_be_harmless(result: "subprocess.CompletedProcess[str]") -> None:
    """One line remains one line of usual length, and no character commands the terminal."""
    assert "Traceback" not in result.stderr
    for line in (result.stdout + result.stderr).splitlines():
        assert line.isprintable() and len(line) < 1500
        assert not line.startswith("error: forged")


@pytest.mark.parametrize(("stage", "code"), [("download", 5), ("submit", 4), ("check", 0)])
def test_what_kaggle_says_commands_no_terminal(
    place: Path, home: Path, kaggle: FaultyKaggle, stage: str, code: int
) -> None:
    status, command = STAGES[stage]
    kaggle.misbehave(*saying(HOSTILE, status))
    result = here(*command, cwd=place, environ=reach(home, kaggle, "KAGGLE_API_TOKEN"))
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


META = cpickle.batches_meta(20, [f"{n}{CLEAR[:7]}\n" for n in range(10)])
KEYS = pickle.dumps({HOSTILE: 1, CLEAR.encode(): 2}, protocol=4)
CLASSES = [f"{CLEAR}\n{k}" for k in range(10)]
PREPROCESS = ["preprocess", "--competition", SLUG, "--force"]


@pytest.mark.parametrize(
    ("does", "command", "code"),
    [
        (in_raw("cifar-10-python/cifar-10-batches-py/batches.meta", META), PREPROCESS, 0),
        (in_raw("cifar_test_nolabel.pkl", KEYS), PREPROCESS, 4),
        (hostile_archive, ["download", "--competition", "other", "--from", "x.zip"], 4),
        (edit("submissions/ledger.csv", hostile_ledger), ["check", "--competition", SLUG, "--verbose"], 0),
        (values(f"data/processed/{SLUG}/manifest.json", "facts", class_names=CLASSES), ["predict", "--force"], 0),
        (values(SIDECAR, run=f"a{CLEAR}"), ["submit"], 4),
        (of_run(values(f"{RUN}/config.json", "config", **{f"{CLEAR}\nerror: forged": 1})), ["predict"], 4),
        (of_run(values(f"{RUN}/config.json", competition=HOSTILE)), ["predict"], 4),
        (edit("data/models/LATEST", lambda _: CLEAR.encode()), ["predict"], 4),
        (move(RUN, f"data/models/t{CLEAR[:4]}"), ["predict", "--run", "t"], 3),
        (nothing, ["sweep", "--search", f"{CLEAR}=1"], 2),
        (nothing, ["submit", "--csv", f"{CLEAR}.csv"], 3),
    ],
)
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
