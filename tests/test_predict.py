import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.kaggle_api import submission_format
from pipeline.predict import predict
from pipeline.store import runs
from pipeline.store.manifest import FileRecord
from tests.support import ROOT, SLUG, clean_environment, error_line, paths_in, prepare, stage, tree, write_run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with preprocessed data and one finished run."""
    prepare(tmp_path)
    write_run(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_work_as_written(place: Path) -> None:
    result = stage("predict", "--out", "submissions/sub.csv", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "run tiny-run (preset rehearsal, competition tiny)" in result.stdout
    csv = place / "submissions/sub.csv"
    lines = csv.read_bytes().split(b"\n")
    assert lines[0] == b"ID,Labels" and lines[-1] == b""
    assert [int(line.split(b",")[0]) for line in lines[1:-1]] == list(range(100, 130))
    card = json.loads(csv.with_suffix(".json").read_text())
    weights = FileRecord.of(place / "data/models/tiny-run" / runs.WEIGHTS).sha256
    assert (card["run"], card["rows"], card["weights_sha256"]) == ("tiny-run", 30, weights)
    assert (card["validation_accuracy"], card["test_accuracy"]) == (91.0, 90.0)
    assert card["csv_sha256"] == FileRecord.of(csv).sha256
    before = tree(place)
    assert "nothing to do" in stage("predict", "--out", "submissions/sub.csv", cwd=place).stdout
    assert tree(place) == before


def test_labels_are_the_networks_and_do_not_depend_on_the_batch(place: Path) -> None:
    import torch

    from pipeline.model import weights
    from pipeline.model.inputs import normalise
    from pipeline.store.processed import Processed
    from pipeline.store.runs import Run
    from pipeline.training.device import choose

    run = Run.open(place / "data/models", None)
    data = Processed.open(place / "data/processed" / SLUG)
    network = weights.load(run.folder / runs.WEIGHTS, run.card.config.model)
    with torch.inference_mode(), choose("cpu").autocast():
        logits = network(normalise(torch.from_numpy(np.array(data.array("hidden_images")))))
    expected = logits.argmax(dim=1).numpy()
    for size in (7, 512):
        csv = predict(paths_in(place), print, out=place / f"{size}.csv", device="cpu", batch_size=size).csv
        assert np.array_equal(submission_format.validate(csv, data.array("hidden_ids")), expected)
    assert (place / "7.csv").read_bytes() == (place / "512.csv").read_bytes()


def test_it_takes_the_run_that_finished_last_or_the_one_asked_for(place: Path) -> None:
    write_run(place, "a-second-run", seed=1)
    assert predict(paths_in(place), print, device="cpu").csv.name == "a-second-run.csv"
    assert predict(paths_in(place), print, run_name="tiny-run", device="cpu").csv.name == "tiny-run.csv"


def test_a_csv_of_somebody_elses_making_is_not_overwritten(place: Path) -> None:
    predict(paths_in(place), print, out=place / "sub.csv", device="cpu")
    (place / "sub.csv").write_text("mine\n")
    assert "--force" in error_line(stage("predict", "--out", "sub.csv", cwd=place), 2)
    assert (place / "sub.csv").read_text() == "mine\n"
    predict(paths_in(place), print, out=place / "sub.csv", device="cpu", force=True)
    assert (place / "sub.csv").read_text().startswith("ID,Labels\n")


def test_damaged_weights_and_changed_data_are_refused(place: Path) -> None:
    weights = place / "data/models/tiny-run" / runs.WEIGHTS
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert "is damaged" in error_line(stage("predict", cwd=place), 4)
    weights.write_bytes(original[:-1])
    assert "missing or damaged" in error_line(stage("predict", cwd=place), 4)
    assert not (place / "submissions").exists() or not tree(place / "submissions")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--run", "none"], 3, "python -m pipeline.train"),
        (["--run", "../../etc"], 2, "not a path"),
        (["--run", "LATEST"], 2, "taken"),
        (["--run", "ledger"], 2, "taken"),
        (["--out", "sub.txt"], 2, ".csv"),
        (["--out", "submissions/ledger.csv"], 2, "the ledger's name"),
        (["--device", "cuda"], 2, "--device cuda"),
        (["--batch-size", "0"], 2, ""),
    ],
)
def test_wrong_usage(place: Path, arguments: list[str], code: int, said: str) -> None:
    before = tree(place)
    result = stage("predict", *arguments, cwd=place)
    assert result.returncode == code
    assert said in result.stderr
    assert tree(place) == before


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_a_damaged_pointer_to_the_latest_run_is_bad_data(place: Path, content: bytes) -> None:
    (place / "data/models" / runs.LATEST).write_bytes(content)
    assert "name one with --run" in error_line(stage("predict", cwd=place), 4)
    assert stage("predict", "--run", "tiny-run", cwd=place).returncode == 0


@pytest.mark.parametrize("content", ['{"mine": 1}', "[]", "mine"])
def test_a_json_of_somebody_elses_beside_the_csv_is_not_overwritten(place: Path, content: str) -> None:
    (place / "notes.json").write_text(content)
    before = tree(place)
    assert "notes.json" in error_line(stage("predict", "--out", "notes.csv", cwd=place), 2)
    assert tree(place) == before


def test_without_a_run_it_names_the_command(tmp_path: Path) -> None:
    assert "run `python -m pipeline.train` first" in error_line(stage("predict", cwd=tmp_path), 3)


def test_a_killed_predict_leaves_no_half_csv_and_a_rerun_finishes(tmp_path: Path) -> None:
    prepare(tmp_path, hidden=4000)
    write_run(tmp_path)
    command = [sys.executable, "-m", "pipeline.predict", "--out", "sub.csv", "--batch-size", "4"]
    environ = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / ".sub.csv.partial").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "sub.csv").exists()
    assert stage("predict", "--out", "sub.csv", cwd=tmp_path).returncode == 0
    assert len((tmp_path / "sub.csv").read_text().splitlines()) == 4001
