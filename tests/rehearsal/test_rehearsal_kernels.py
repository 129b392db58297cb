"""The stand-in's kernels, without the genuine client: that is in tests/test_kernel.py."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.rehearsal.kernels import Kernels
from pipeline.rehearsal.replies import Refusal, Reply

SLUG = "tiny"
WHICH = {"userName": "rehearsal", "kernelSlug": "my-run"}
ENVIRON = {"KAGGLE_API_TOKEN": "secret", "PIPELINE_COMPETITION": "x", "PYTHONPATH": "/x", "OMP_NUM_THREADS": "1"}
PRINTS_ALL = """
import json, os, pathlib, sys
pathlib.Path("below").mkdir()
pathlib.Path("below/a b.txt").write_text("put out")
print(json.dumps(dict(os.environ)))
print(sorted(os.listdir(os.environ["PIPELINE_KERNEL_INPUT"] + "/tiny")), os.getcwd())
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[Kernels]:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    with closing(Kernels(tmp_path / "kernels", SLUG, tmp_path / "source", ENVIRON)) as running:
        yield running


def values(reply: Reply) -> Any:
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


def save(kernels: Kernels, text: str, **changes: object) -> Any:
    request: dict[str, object] = {
        "slug": "rehearsal/my-run", "newTitle": "my-run", "language": "python", "text": text,
        "competitionDataSources": [SLUG],
    }  # fmt: skip
    return values(kernels.save(request | changes))


def ended(kernels: Kernels) -> Any:
    """Its status when it runs no longer."""
    end = time.monotonic() + 30
    while (found := values(kernels.status(WHICH)))["status"] == "RUNNING" and time.monotonic() < end:
        time.sleep(0.02)
    return found


def printed(kernels: Kernels) -> list[str]:
    return [event["data"] for event in json.loads(values(kernels.output(WHICH, ""))["log"])]


def test_what_is_pushed_runs_with_the_files_and_without_credentials(kernels: Kernels, tmp_path: Path) -> None:
    assert save(kernels, PRINTS_ALL)["versionNumber"] == 1
    assert ended(kernels) == {"status": "COMPLETE", "failureMessage": ""}
    environment, rest = printed(kernels)
    home = tmp_path / "kernels/my-run"
    seen = json.loads(environment)
    assert "KAGGLE_API_TOKEN" not in seen and "PYTHONPATH" not in seen and "PIPELINE_COMPETITION" not in seen
    assert (seen["OMP_NUM_THREADS"], seen["https_proxy"], seen["HOME"]) == ("1", "http://127.0.0.1:9", str(home))
    assert rest == f"['file'] {home / 'working'}\n"
    listed = values(kernels.output(WHICH, "http://localhost"))["files"]
    assert [file["fileName"] for file in listed] == ["below/a b.txt"]
    assert listed[0]["url"].startswith("http://localhost/storage/kernels/my-run/below/a%20b.txt?X-Goog-")
    assert kernels.file("my-run/below/a b.txt").path.read_text() == "put out"
    got = values(kernels.get(WHICH))
    assert (got["blob"]["source"], got["metadata"]["currentVersionNumber"]) == (PRINTS_ALL, 1)


def test_a_failure_is_told_and_a_new_version_takes_its_place(kernels: Kernels) -> None:
    save(kernels, "print('why'); raise SystemExit(3)")
    assert ended(kernels) == {"status": "ERROR", "failureMessage": "Your kernel ended with exit code 3"}
    assert printed(kernels) == ["why\n"]
    assert save(kernels, "print('better')")["versionNumber"] == 2
    assert ended(kernels)["status"] == "COMPLETE"
    assert values(kernels.status(WHICH | {"versionLabel": "v2"}))["status"] == "COMPLETE"
    with pytest.raises(Refusal, match="knows version 2 alone"):
        kernels.status(WHICH | {"versionLabel": "v1"})


def test_what_runs_ends_with_the_stand_in_and_with_all_that_it_started(tmp_path: Path, kernels: Kernels) -> None:
    save(kernels, "import subprocess; subprocess.run(['sh', '-c', 'echo up; sleep 60; touch late'])")
    log = tmp_path / "kernels/my-run/log.txt"
    end = time.monotonic() + 30
    while log.read_text() != "up\n" and time.monotonic() < end:
        time.sleep(0.02)
    process = kernels._processes["my-run"]
    kernels.close()
    assert process.returncode == -9
    again = Kernels(tmp_path / "kernels", SLUG, tmp_path / "source", ENVIRON)
    assert values(again.status(WHICH))["status"] == "CANCEL_ACKNOWLEDGED"


def test_after_a_kill_of_the_stand_in_it_counts_as_cancelled(tmp_path: Path, kernels: Kernels) -> None:
    save(kernels, "import time; time.sleep(60)")
    again = Kernels(tmp_path / "kernels", SLUG, tmp_path / "source", ENVIRON)
    assert values(again.status(WHICH))["status"] == "CANCEL_ACKNOWLEDGED"


def test_another_competition_is_left_out_and_named(kernels: Kernels, tmp_path: Path) -> None:
    answer = save(kernels, "", competitionDataSources=["other"])
    assert answer["invalidCompetitionSources"] == ["other"]
    assert not list((tmp_path / "kernels/my-run/input").iterdir())


@pytest.mark.parametrize(
    "changes",
    [{"slug": "somebody/my-run"}, {"slug": "rehearsal/../x"}, {"slug": "rehearsal/"}, {"text": "#" * 1_000_001}],
)
def test_what_kaggle_refuses_with_a_text(kernels: Kernels, changes: dict[str, object], tmp_path: Path) -> None:
    assert save(kernels, **{"text": "", **changes})["error"]  # type: ignore[arg-type]
    assert not (tmp_path / "kernels").exists()


@pytest.mark.parametrize("which", [WHICH | {"userName": "somebody"}, WHICH | {"kernelSlug": "../my-run"}])
def test_what_is_not_there_is_answered_as_if_it_were_forbidden(kernels: Kernels, which: dict[str, str]) -> None:
    for call in (kernels.get, kernels.status, lambda request: kernels.output(request, "")):
        with pytest.raises(Refusal) as caught:
            call(which)
        assert caught.value.reply.status == 403
    with pytest.raises(Refusal):
        kernels.file("my-run/../kernel.json")
