"""Whom a run learned from: found where it still is, and told where not."""

from pathlib import Path

import pytest

from pipeline.config import Paths
from pipeline.packing import lineage
from pipeline.store import atomic
from pipeline.store.manifest import FileRecord
from pipeline.store.runs import Run
from pipeline.store.sidecar import Sidecar
from tests.packing.made import identity, write_made


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(models=tmp_path / "models", submissions=tmp_path / "submissions")


def traced(paths: Paths, *asked: Run) -> dict[str, lineage.Made]:
    return {made.name: made for made in lineage.trace(asked, paths.models, paths.submissions)}


def test_teachers_come_before_whom_they_taught_and_once(paths: Paths) -> None:
    grandmother = write_made(paths.models, "z")
    mother = write_made(paths.models, "y", identity(grandmother))
    child = write_made(paths.models, "a", identity(mother), identity(grandmother))
    write_made(paths.models, "stranger")
    found = traced(paths, child, grandmother)
    assert list(found) == ["z", "y", "a"]
    assert [(teacher.name, teacher.here) for teacher in found["a"].teachers] == [("y", True), ("z", True)]
    assert not any(made.lost for made in found.values())


def test_a_teacher_that_was_removed_or_trained_again_is_lost(paths: Paths) -> None:
    teacher = write_made(paths.models, "teacher")
    child = write_made(paths.models, "child", "gone@0123", "../x@0123", f"{teacher.name}@0123")
    found = traced(paths, child)
    assert list(found) == ["child"]
    assert found["child"].lost == [f"its teacher {name}@0123" for name in ("gone", "../x", "teacher")]


def test_pseudo_labels_are_found_by_their_content(paths: Paths) -> None:
    csv = paths.submissions / "sub.csv"
    atomic.write_bytes(csv, b"ID,Labels\n0,1\n")
    sha256 = FileRecord.of(csv).sha256
    child = write_made(paths.models, "child", labels=f"sub.csv@{sha256[:12]}")
    assert traced(paths, child)["child"].lost == [f"the pseudo-labels sub.csv@{sha256[:12]}"]  # train wants its sidecar
    Sidecar("tiny", "a+b", sha256, 1, "w", "h", 90.0, "split", 90.0, "now", {}).write(csv)
    found = traced(paths, child)["child"]
    assert found.labels == lineage.Labels("sub.csv", sha256[:12], csv, "a+b") and not found.lost
    csv.write_bytes(b"ID,Labels\n0,2\n")
    assert traced(paths, child)["child"].lost


def test_a_card_cannot_lead_to_other_files(paths: Paths, tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "secret.csv", b"secret")
    sha256 = FileRecord.of(tmp_path / "secret.csv").sha256
    Sidecar("tiny", "a", sha256, 1, "w", "h", 90.0, "split", 90.0, "now", {}).write(tmp_path / "secret.csv")
    paths.submissions.mkdir()
    for name in ("../secret.csv", str(tmp_path / "secret.csv")):
        labels = traced(paths, write_made(paths.models, "child", labels=f"{name}@{sha256[:12]}"))["child"].labels
        assert labels is not None and labels.csv is None
