"""A kill of each stage at a moment that nobody chose; tests/bench/soak.py has more of them, and of run_all.sh."""

import os
import random
from pathlib import Path

import pytest

from pipeline import predict
from pipeline.store import ledger
from tests.hostile.kills import Template, kill_once
from tests.support import prepare, write_run

STAGES = ("download", "from", "preprocess", "train", "predict", "submit", "check")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize(("stage", "seed"), [(stage, seed) for seed, stage in enumerate(STAGES)])
def test_a_killed_stage_leaves_nothing_half_done_and_ends_as_if_nothing_had_been(
    stage: str, seed: int, template: Template, tmp_path: Path
) -> None:
    outcome = kill_once(random.Random(seed), stage, template, tmp_path / "place")
    assert not outcome.problems, "\n".join(outcome.problems)


def test_ctrl_c_between_a_sidecar_and_its_csv_does_not_pass_for_somebodys_editing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    write_run(tmp_path, "one")
    write_run(tmp_path, "two", seed=3)
    monkeypatch.chdir(tmp_path)
    command = ["--out", "submissions/sub.csv", "--device", "cpu", "--run"]
    assert predict.main([*command, "one"]) == 0
    first = Path("submissions/sub.csv").read_bytes()
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if target.suffix == ".csv":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        assert predict.main([*command, "two"]) == 130
    assert Path("submissions/sub.csv").read_bytes() == first
    assert predict.main([*command, "two"]) == 0
    assert Path("submissions/sub.csv").read_bytes() != first
    assert predict.main([*command, "two"]) == 0


def test_a_prediction_that_a_killed_run_did_not_write_is_written_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert predict.main(["--device", "cpu"]) == 0
    book = Path("submissions/ledger.csv")
    before = ledger.read(book)[-1]
    book.unlink()
    assert predict.main(["--device", "cpu"]) == 0
    (again,) = ledger.read(book)
    assert (again.status, again.csv_sha256) == (ledger.PREDICTED, before.csv_sha256)
    assert again.predicted == before.predicted
    assert predict.main(["--device", "cpu"]) == 0
    assert len(ledger.read(book)) == 1
