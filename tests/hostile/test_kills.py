"""A kill of each stage at a moment that nobody chose; tests/bench/soak.py has more of them."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import ledger
from tests.forked_client import forked_client
from tests.hostile.edits import CSV
from tests.hostile.kills import Template, kill_once, session
from tests.support import ROOT, here, serve, wait_until, write_run

STAGES = ("download", "preprocess", "train", "predict", "submit")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    template = Template(tmp_path_factory.mktemp("template"))
    for stage in STAGES:
        template.end(stage)  # with the client that will be killed
    with forked_client():
        yield template


@pytest.mark.parametrize(("seed", "stage"), list(enumerate(STAGES)))
def test_a_killed_stage_leaves_nothing_half_done_and_ends_as_if_nothing_had_been(
    stage: str, seed: int, template: Template, tmp_path: Path
) -> None:
    _, problems = kill_once(random.Random(seed), stage, template, tmp_path / "place")
    assert not problems, "\n".join(problems)


def test_ctrl_c_between_a_sidecar_and_its_csv_does_not_pass_for_somebodys_editing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(place, "two", seed=3)
    command = ("predict", "--out", CSV, "--device", "cpu", "--run", "two")
    first, replace = (place / CSV).read_bytes(), os.replace

    def interrupted(source: Path, target: Path) -> None:
        if target.suffix == ".csv":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        assert here(*command, "--force", cwd=place).returncode == 130
    assert (place / CSV).read_bytes() == first
    for _ in range(2):
        assert here(*command, cwd=place).returncode == 0
        assert (place / CSV).read_bytes() != first


def test_a_prediction_that_a_killed_run_did_not_write_is_written_by_the_next(place: Path) -> None:
    book = place / "submissions/ledger.csv"
    (before,) = ledger.read(book)
    book.unlink()
    for _ in range(2):
        assert here("predict", cwd=place).returncode == 0
        (again,) = ledger.read(book)
        assert (again.status, again.csv_sha256) == (ledger.PREDICTED, before.csv_sha256)
        assert again.predicted == before.predicted


def test_the_client_does_not_outlive_a_killed_stage(place: Path) -> None:
    with serve(place, "ListDataFiles:hang=30") as kaggle:
        command = [sys.executable, "-m", "pipeline.download", "--raw", "elsewhere"]
        environ = {**kaggle.environment, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, cwd=place, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            wait_until(lambda: kaggle.calls.count("ListDataFiles"))
            assert len(session(process.pid)) == 2
            process.kill()
        wait_until(lambda: not session(process.pid), seconds=5)
