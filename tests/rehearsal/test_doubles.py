"""The doubles that other tests rely on; that each kind of fault strikes, the tests show which need it."""

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
from tests.doubles.kaggle import faulty_kaggle
from tests.doubles.kernels import Kernels
from tests.rehearsal.plain_http import call, make_folder

# --- faults -------------------------------------------------------------------------------------------------


def test_a_fault_is_read_and_strikes_as_often_as_it_says() -> None:
    assert parse("Upload:cut=10*3") == Fault("Upload", "cut", "10", 3)
    assert parse('GetSubmission:fields={"ref": 7}*1') == Fault("GetSubmission", "fields", '{"ref": 7}', 1)
    with pytest.raises(ValueError, match="not a fault: Upload:explode"):
        parse("Upload:explode")
    faults = Faults(["Upload:status=500*2", "Upload:html*1", "Upload:flip"])
    taken = [faults.take(("Upload",), ANSWERS) for _ in range(4)]
    assert [fault.kind if fault else None for fault in taken] == ["status", "status", "html", None]


def test_stopping_ends_what_hangs(tmp_path: Path) -> None:
    def quietly() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            call(kaggle, "ListDataFiles")

    hangs = ["ListDataFiles:hang=60"]
    with faulty_kaggle(make_folder(tmp_path), tmp_path / "state", faults=hangs, environ={}) as kaggle:
        hanging = threading.Thread(target=quietly)
        hanging.start()
        wait(lambda: bool(kaggle.calls))
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
    with pytest.raises(Refusal, match="denied"):
        kernels.get(WHICH | {"userName": "somebody"})
    assert save(kernels, "", slug="somebody/my-run")["error"]


def test_closing_ends_what_runs(tmp_path: Path, kernels: Kernels) -> None:
    save(kernels, "import subprocess; subprocess.run(['sh', '-c', 'echo up; sleep 60'])")
    log = tmp_path / "kernels/my-run/log.txt"
    wait(lambda: log.read_text() == "up\n")
    kernels.close()
    assert values(kernels.status(WHICH))["status"] == "CANCEL_ACKNOWLEDGED"
