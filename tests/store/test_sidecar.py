import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.errors import BadData
from pipeline.store import submissions
from pipeline.store.submissions import Sidecar

CARD = Sidecar(
    "c", "a+b", "f" * 64, 5, "w", "h", None, "split", 94.1, "2025-03-01T11:00:00+00:00", {"torch": "2.14"},
    {"a": "wa", "b": "wb"}, "flip", submittable=False,
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    CARD.write(tmp_path / "sub.csv")
    assert Sidecar.read(tmp_path / "sub.csv") == CARD
    assert Sidecar.read(tmp_path / "other.csv") is None


def test_a_sidecar_from_before_there_were_ensembles_is_of_one_plain_run(tmp_path: Path) -> None:
    values = dataclasses.asdict(CARD)
    for name in ("runs", "tta", "submittable"):
        del values[name]
    (tmp_path / "sub.json").write_text(json.dumps(values))
    found = Sidecar.read(tmp_path / "sub.csv")
    assert found is not None and (found.runs, found.tta, found.submittable) == ({}, "none", True)


def test_a_sidecar_of_an_older_version_is_read_under_todays_names(tmp_path: Path) -> None:
    values = dataclasses.asdict(CARD) | {"adapt": "norms", "measure": "undo"}
    (tmp_path / "sub.json").write_text(json.dumps(values))
    found = Sidecar.read(tmp_path / "sub.csv")
    assert found is not None and (found.adapt, found.measure) == ("bn", "revert")


@pytest.mark.parametrize("content", ["", "[]", '{"run": "a"}', json.dumps({**dataclasses.asdict(CARD), "more": 1})])
def test_a_damaged_sidecar_is_bad_data_and_not_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "sub.json").write_text(content)
    with pytest.raises(BadData, match=r"sub\.json is damaged or of another version"):
        Sidecar.read(tmp_path / "sub.csv")
    assert not submissions.is_ours(tmp_path / "sub.csv")


def test_a_tag_is_found_again_also_that_of_a_large_ensemble() -> None:
    assert submissions.tag("run1", "f" * 64, 94.3) == f"run=run1 sha={'f' * 12} val=94.30"
    long = submissions.tag("+".join(f"paper-{k:08x}" for k in range(50)), "f" * 64, None)
    assert len(long) < 150 and long.endswith(" val=unknown")
    assert submissions.carries(long, "f" * 64) and not submissions.carries(long, "e" * 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [("test_accuracy", 10**400), ("test_accuracy", float("nan")), ("rows", True), ("run", "a; rm -r")],
)
def test_values_that_nobody_writes_are_bad_data(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / "sub.json").write_text(json.dumps({**dataclasses.asdict(CARD), name: value}))
    with pytest.raises(BadData, match=r"sub\.json is damaged .*pipeline\.predict"):
        Sidecar.read(tmp_path / "sub.csv")


def test_json_that_is_nested_too_deeply_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "sub.json").write_text("[" * 100_000)
    with pytest.raises(BadData, match="too many brackets"):
        Sidecar.read(tmp_path / "sub.csv")
