"""The doubles that other tests rely on: each fault does what it says, and kernels run apart."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.rehearsal.service import Reply
from pipeline.rehearsal.state import Refusal
from tests.doubles.faults import ANSWERS, Fault, Faults, parse
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.doubles.kernels import Kernels
from tests.rehearsal.plain_http import CONTENT, SLUG, ask, call, make_folder, submit

BREAKS = (http.client.BadStatusLine, OSError)


# --- faults -------------------------------------------------------------------------------------------------


@pytest.fixture
def kaggle(tmp_path: Path) -> Iterator[FaultyKaggle]:
    with faulty_kaggle(make_folder(tmp_path), tmp_path / "state", environ={}) as running:
        yield running


def test_a_fault_is_read_and_strikes_as_often_as_it_says() -> None:
    assert parse("Upload:cut=10*3") == Fault("Upload", "cut", "10", 3)
    assert parse('GetSubmission:fields={"ref": 7}*1') == Fault("GetSubmission", "fields", '{"ref": 7}', 1)
    with pytest.raises(ValueError, match="not a fault: Upload:explode"):
        parse("Upload:explode")
    faults = Faults(["Upload:status=500*2", "Upload:html*1", "Upload:flip"])
    taken = [faults.take(("Upload",), ANSWERS) for _ in range(4)]
    assert [fault.kind if fault else None for fault in taken] == ["status", "status", "html", None]


def test_faults_instead_of_an_answer(kaggle: FaultyKaggle) -> None:
    kaggle.misbehave("ListDataFiles:status=429,retry=7*1", "ListDataFiles:html*1", "ListDataFiles:loop*1",
                     "ListDataFiles:close*1")  # fmt: skip
    busy = call(kaggle, "ListDataFiles")
    assert (busy.status, busy.headers["Retry-After"], busy.json["code"]) == (429, "7", 429)
    page = call(kaggle, "ListDataFiles")
    assert (page.status, page.headers["Content-Type"]) == (502, "text/html")
    redirect = call(kaggle, "ListDataFiles")
    again = ask(kaggle, "GET", redirect.headers["Location"])
    assert (redirect.status, again.status) == (302, 302)
    assert redirect.headers["Location"] == again.headers["Location"]
    with pytest.raises(BREAKS):
        call(kaggle, "ListDataFiles")
    assert call(kaggle, "ListDataFiles").status == 200


def test_faults_in_the_answer_do_not_hinder_the_act(kaggle: FaultyKaggle) -> None:
    kaggle.misbehave("CreateSubmission:body*1", 'CreateSubmission:fields={"ref": 7, "more": []}*1',
                     "CreateSubmission:accepted-then=500*1", "CreateSubmission:accepted-then=cut*1")  # fmt: skip
    assert submit(kaggle, b"ID,Labels\n0,1\n").body == b""
    changed = submit(kaggle, b"ID,Labels\n0,1\n")
    assert changed.json == {"message": f"Successfully submitted to {SLUG}", "ref": 7, "more": []}
    assert submit(kaggle, b"ID,Labels\n0,1\n").status == 500
    with pytest.raises(BREAKS):
        submit(kaggle, b"ID,Labels\n0,1\n")
    kaggle.misbehave("ListSubmissions:body=<p>")
    assert call(kaggle, "ListSubmissions").body == b"<p>"
    kaggle.misbehave()
    assert call(kaggle, "GetSubmissionLimits").json["numTotal"] == 4


def test_faults_of_the_content(kaggle: FaultyKaggle) -> None:
    url = call(kaggle, "DownloadDataFile", fileName="a.bin").headers["Location"]
    kaggle.misbehave("DownloadDataFile:cut=100*1", "Download:flip=9999*1", "DownloadDataFile:flip*1",
                     "Download:truncate=50*1", "Upload:cut=5*1")  # fmt: skip
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(kaggle, "GET", url)
    assert cut.value.partial == CONTENT[:100]
    flipped = ask(kaggle, "GET", url, Range="bytes=9000-").body
    assert [i + 9000 for i, byte in enumerate(flipped) if byte != CONTENT[9000 + i]] == [9999]
    assert [i for i, b in enumerate(ask(kaggle, "GET", url).body) if b != CONTENT[i]] == [5120]
    short = ask(kaggle, "GET", url)
    assert (short.headers["Content-Length"], short.body) == ("50", CONTENT[:50])
    assert ask(kaggle, "GET", url).body == CONTENT
    token = call(kaggle, "StartSubmissionUpload", contentLength=14, fileName="s.csv").json["token"]
    with pytest.raises(BREAKS):
        ask(kaggle, "PUT", f"/upload/{token}", b"ID,Labels\n0,1\n")


def test_stopping_ends_what_hangs(tmp_path: Path) -> None:
    with faulty_kaggle(
        make_folder(tmp_path), tmp_path / "state", faults=["ListDataFiles:hang=60"], environ={}
    ) as kaggle:

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


# --- kernels ------------------------------------------------------------------------------------------------

WHICH = {"userName": "rehearsal", "kernelSlug": "my-run"}
ENVIRON = {"KAGGLE_API_TOKEN": "secret", "PIPELINE_COMPETITION": "x", "PYTHONPATH": "/x", "OMP_NUM_THREADS": "1"}
PRINTS_ALL = """
import json, os, pathlib
pathlib.Path("below").mkdir()
pathlib.Path("below/a b.txt").write_text("put out")
print(json.dumps(dict(os.environ)))
print(sorted(os.listdir(os.environ["PIPELINE_KERNEL_INPUT"] + "/tiny")))
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[Kernels]:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    with closing(Kernels(tmp_path / "kernels", "tiny", tmp_path / "source", ENVIRON)) as running:
        yield running


def values(reply: Reply) -> Any:
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


def save(kernels: Kernels, text: str, **changes: object) -> Any:
    request: dict[str, object] = {
        "slug": "rehearsal/my-run", "newTitle": "my-run", "language": "python", "text": text,
        "competitionDataSources": ["tiny"],
    }  # fmt: skip
    return values(kernels.save(request | changes))


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(kernels: Kernels) -> Any:
    """Its status when it runs no longer."""
    wait(lambda: values(kernels.status(WHICH))["status"] != "RUNNING")
    return values(kernels.status(WHICH))


def test_a_kernel_runs_with_the_files_and_without_credentials(kernels: Kernels, tmp_path: Path) -> None:
    assert save(kernels, PRINTS_ALL)["versionNumber"] == 1
    assert ended(kernels) == {"status": "COMPLETE", "failureMessage": ""}
    listed = values(kernels.output(WHICH, "http://localhost"))
    environment, rest = [event["data"] for event in json.loads(listed["log"])]
    seen = json.loads(environment)
    assert not {"KAGGLE_API_TOKEN", "PYTHONPATH", "PIPELINE_COMPETITION"} & seen.keys()
    assert (seen["OMP_NUM_THREADS"], seen["https_proxy"]) == ("1", "http://127.0.0.1:9")
    assert seen["HOME"] == str(tmp_path / "kernels/my-run") and rest == "['file']\n"
    (file,) = listed["files"]
    assert file["fileName"] == "below/a b.txt"
    assert file["url"].startswith("http://localhost/storage/kernels/my-run/below/a%20b.txt?X-Goog-")
    assert b"".join(kernels.file("my-run/below/a b.txt").chunks(0, 9)) == b"put out"
    assert values(kernels.get(WHICH))["blob"]["source"] == PRINTS_ALL


def test_a_failure_is_told_and_a_new_version_takes_its_place(kernels: Kernels) -> None:
    save(kernels, "raise SystemExit(3)")
    assert ended(kernels) == {"status": "ERROR", "failureMessage": "Your kernel ended with exit code 3"}
    assert save(kernels, "", competitionDataSources=["other"])["invalidCompetitionSources"] == ["other"]
    assert ended(kernels)["status"] == "COMPLETE"
    assert values(kernels.get(WHICH))["metadata"]["currentVersionNumber"] == 2
    with pytest.raises(Refusal, match="knows version 2 alone"):
        kernels.status(WHICH | {"versionLabel": "v1"})


def test_closing_ends_what_runs(tmp_path: Path, kernels: Kernels) -> None:
    save(kernels, "import subprocess; subprocess.run(['sh', '-c', 'echo up; sleep 60'])")
    log = tmp_path / "kernels/my-run/log.txt"
    wait(lambda: log.read_text() == "up\n")
    kernels.close()
    assert values(kernels.status(WHICH))["status"] == "CANCEL_ACKNOWLEDGED"


def test_what_kaggle_refuses(kernels: Kernels, tmp_path: Path) -> None:
    for changes in ({"slug": "somebody/my-run"}, {"slug": "rehearsal/../x"}, {"text": "#" * 1_000_001}):
        assert save(kernels, **{"text": "", **changes})["error"]
    assert not (tmp_path / "kernels").exists()
    save(kernels, "")
    for which in (WHICH | {"userName": "somebody"}, WHICH | {"kernelSlug": "../my-run"}):
        with pytest.raises(Refusal) as caught:
            kernels.get(which)
        assert caught.value.status == 403
    with pytest.raises(Refusal):
        kernels.file("my-run/../main.py")
