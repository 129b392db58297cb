import dataclasses
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Paths
from pipeline.errors import BadData, MissingInput
from pipeline.store import submissions
from pipeline.store.submissions import Evidence, LocalCsv, Outputs, Sidecar, evidence_path

SIDECAR = Sidecar(
    "c", "a+b", "f" * 64, 5, "w", "h", None, "split", 94.1, "2025-03-01T11:00:00+00:00", {"torch": "2.14"},
    {"a": "wa", "b": "wb"}, "flip", submittable=False,
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    SIDECAR.write(tmp_path / "sub.csv")
    assert Sidecar.read(tmp_path / "sub.csv") == SIDECAR
    assert Sidecar.read(tmp_path / "other.csv") is None


def test_the_command_that_predicts_again_has_the_runs_and_folders(tmp_path: Path) -> None:
    csv, paths = tmp_path / "my subs/a.csv", Paths(models=tmp_path / "m")
    told = submissions.again(csv, "a+b", paths).removeprefix("run `").removesuffix("`")
    words = f"python -m pipeline.predict --models {tmp_path}/m --run a b --out".split()
    assert shlex.split(told) == [*words, str(csv)]


def test_a_sidecar_of_an_older_version_is_read_under_todays_names(tmp_path: Path) -> None:
    values = dataclasses.asdict(SIDECAR) | {"adapt": "norms", "measure": "undo"}
    for name in ("runs", "tta", "submittable"):  # from before there were ensembles
        del values[name]
    (tmp_path / "sub.json").write_text(json.dumps(values))
    found = Sidecar.read(tmp_path / "sub.csv")
    assert found is not None and (found.adapt, found.measure) == ("bn", "revert")
    assert (found.runs, found.tta, found.submittable) == ({}, "none", True)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"run": "a"}', "[" * 100_000]
    + [
        json.dumps({**dataclasses.asdict(SIDECAR), name: value})
        for name, value in (
            ("more", 1), ("test_accuracy", 10**400), ("test_accuracy", float("nan")), ("rows", True),
            ("run", "a; rm -r"), ("competition", "../x"),
        )
    ],
)  # fmt: skip
def test_a_damaged_sidecar_is_bad_data_and_not_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "sub.json").write_text(content)
    with pytest.raises(BadData, match=r"sub\.json is damaged or of another version .*pipeline\.predict"):
        Sidecar.read(tmp_path / "sub.csv")
    assert submissions.strangers(tmp_path / "sub.csv") == [tmp_path / "sub.json"]


def test_only_what_predict_wrote_and_nobody_edited_is_a_csv_of_ours(tmp_path: Path) -> None:
    csv = tmp_path / "sub.csv"
    with pytest.raises(MissingInput, match=r"python -m pipeline\.predict --out"):
        submissions.local_csv(csv, "c")
    csv.write_text("ID,Labels\n")
    with pytest.raises(BadData, match="not written by predict"):
        submissions.local_csv(csv, "c")
    sidecar = dataclasses.replace(SIDECAR, csv_sha256=hashlib.sha256(csv.read_bytes()).hexdigest())
    sidecar.write(csv)
    assert [found.sidecar for found in submissions.local_csvs(tmp_path, "c")] == [sidecar]
    with pytest.raises(BadData, match="add --competition c"):
        submissions.local_csv(csv, "d")
    (tmp_path / "old.csv").mkdir()
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    assert [found.path for found in submissions.local_csvs(tmp_path)] == [csv]
    csv.write_text("ID,Labelz\n")
    with pytest.raises(BadData, match="edited after predict wrote it"):
        submissions.local_csv(csv, "c")
    assert submissions.local_csvs(tmp_path, "c") == []


def test_a_tag_is_found_again_also_that_of_a_large_ensemble() -> None:
    assert submissions.tag("run1", "f" * 64, 94.3) == f"run=run1 sha={'f' * 12} val=94.30"
    long = submissions.tag("+".join(f"paper-{k:08x}" for k in range(50)), "f" * 64, None)
    assert len(long) < 150 and long.endswith(" val=unknown")
    assert submissions.carries(long, "f" * 64)
    assert not submissions.carries(long, "f" * 11 + "e" * 53)
    assert not submissions.carries("sha=" + "f" * 13, "f" * 64)  # by hand


def said(count: int, *, labelled: bool) -> Outputs:
    rng = np.random.default_rng(count)
    probabilities = rng.dirichlet([1.0] * 10, size=count).astype(np.float32)
    members = rng.integers(0, 10, (2, count)).astype(np.uint8)
    return Outputs(probabilities, members, members[0] if labelled else None)


@pytest.fixture
def evidence() -> Evidence:
    rows, features = np.array([0, 3]), np.ones((2, 4), dtype=np.float32)
    return Evidence(
        ("one", "two"), said(7, labelled=False), said(5, labelled=True), said(3, labelled=True),
        rows, features, features[:, 0], rows, features, {"verdict": "none"},
    )  # fmt: skip


def read(csv: Path) -> Evidence:
    return Evidence.read(LocalCsv(csv, 0, SIDECAR))


@pytest.mark.parametrize("with_split", [True, False])
def test_it_survives_the_file(tmp_path: Path, evidence: Evidence, with_split: bool) -> None:
    evidence = evidence if with_split else dataclasses.replace(evidence, validation=None)
    csv = tmp_path / "sub.csv"
    with pytest.raises(BadData, match="no saved probabilities"):
        read(csv)
    evidence.write(csv, "e" * 64)
    with pytest.raises(BadData, match="of another CSV"):
        read(csv)
    evidence.write(csv, SIDECAR.csv_sha256)
    found = read(csv)
    assert found.runs == ("one", "two")
    assert found.findings == {"verdict": "none"} and found.ood_scores.tolist() == [1, 1]
    np.testing.assert_array_equal(found.hidden.probabilities, evidence.hidden.probabilities)
    np.testing.assert_array_equal(found.holdout.truth, evidence.holdout.truth)
    np.testing.assert_array_equal(found.hidden_features, evidence.hidden_features)
    assert found.hidden.truth is None and (found.validation is not None) == with_split
    assert found.hidden.labels.tolist() == evidence.hidden.probabilities.argmax(1).tolist()


def test_every_torn_file_is_bad_data(tmp_path: Path, evidence: Evidence) -> None:
    csv = tmp_path / "sub.csv"
    evidence.write(csv, SIDECAR.csv_sha256)
    content = evidence_path(csv).read_bytes()
    for end in (0, 1, 100, len(content) // 2, len(content) - 1):
        evidence_path(csv).write_bytes(content[:end])
        with pytest.raises(BadData, match="predict again with --force"):
            read(csv)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("hidden", {"members": np.zeros((2, 3), np.uint8)}, "hidden do not fit"),
        ("holdout", {"truth": None}, "test_truth"),
        ("holdout", {"truth": np.full(5, 255, np.uint8)}, "labels of test are invalid"),
        ("holdout", {"truth": np.zeros(5)}, "labels of test are invalid|do not fit"),
        ("holdout", {"truth": np.zeros((5, 1), np.uint8)}, "labels of test are invalid|do not fit"),
    ],
)
def test_arrays_that_do_not_fit_are_bad_data(
    tmp_path: Path, evidence: Evidence, part: str, changes: dict[str, Any], message: str
) -> None:
    csv = tmp_path / "sub.csv"
    changed: dict[str, Any] = {part: dataclasses.replace(getattr(evidence, part), **changes)}
    dataclasses.replace(evidence, **changed).write(csv, SIDECAR.csv_sha256)
    with pytest.raises(BadData, match=message):
        read(csv)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
def test_of_very_many_predictions_some_are_enough(tmp_path: Path, evidence: Evidence, most: int) -> None:
    csv = LocalCsv(tmp_path / "sub.csv", 0, SIDECAR)
    evidence.write(csv.path, SIDECAR.csv_sha256)
    found, step = Evidence.read(csv, most), -(-7 // most)
    assert len(found.hidden) <= most
    np.testing.assert_array_equal(found.hidden.probabilities, evidence.hidden.probabilities[::step])
    np.testing.assert_array_equal(found.hidden.members, evidence.hidden.members[:, ::step])
    np.testing.assert_array_equal(found.holdout.probabilities, evidence.holdout.probabilities)
