"""What a package says about what it made again."""

import dataclasses
from pathlib import Path

from pipeline.packing import reproduction
from pipeline.store import runs
from pipeline.store.manifest import FileRecord
from pipeline.store.runs import EXECUTION
from tests.packing.made import RESULT, write_made


def test_a_csv_is_the_submitted_one_or_not(tmp_path: Path) -> None:
    csv = tmp_path / "a.csv"
    csv.write_text("ID,Labels\n")
    sha256 = FileRecord.of(csv).sha256
    assert reproduction.of_csv(csv, sha256) == f"a.csv is IDENTICAL to the submitted CSV (sha256 {sha256})"
    other = reproduction.of_csv(csv, "0" * 64)
    assert other.startswith(f"WARNING: a.csv DIFFERS from the submitted CSV: sha256 {sha256}") and "precision" in other


def test_weights_are_the_same_or_their_accuracies_are_compared(tmp_path: Path) -> None:
    write_made(tmp_path, "run", weights="w")
    write_made(tmp_path, "run-again", weights="w")
    assert "run-again are IDENTICAL to those of run" in reproduction.of_weights(tmp_path, "run", "run-again")
    write_made(tmp_path, "run-again", weights="v", result=dataclasses.replace(RESULT, test_accuracy=89.5))
    assert "test accuracy 89.50 %, of run 90.00 %" in reproduction.of_weights(tmp_path, "run", "run-again")


def test_a_training_begins_as_the_shipped_one_computed(tmp_path: Path) -> None:
    write_made(tmp_path, "run")
    reproduction.begin(tmp_path, "run", "again")
    assert not (tmp_path / "again").exists()  # nothing is known of how it computed
    (tmp_path / "run" / EXECUTION).write_text("{}")
    reproduction.begin(tmp_path, "run", "again")
    assert (tmp_path / "again" / EXECUTION).read_text() == "{}"
    (tmp_path / "run" / EXECUTION).write_text("[]")
    (tmp_path / "again" / runs.CONFIG).touch()
    reproduction.begin(tmp_path, "run", "again")
    assert (tmp_path / "again" / EXECUTION).read_text() == "{}"  # what was begun goes on
