import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from pipeline.errors import BadData, MissingInput
from pipeline.store import atomic
from pipeline.store.manifest import FileRecord, Manifest, read_json, records, versions


def test_a_manifest_tells_what_is_missing_or_cut(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name * 10)
    assert Manifest.read(tmp_path) is None
    written = Manifest("stage", records(tmp_path, tmp_path.iterdir()), {"in": "1"}, {"fact": [1]}, versions("numpy"))
    written.write(tmp_path)
    assert Manifest.read(tmp_path) == written
    assert written.files["a"] == FileRecord(10, hashlib.sha256(b"a" * 10).hexdigest())
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("short")
    assert written.missing(tmp_path) == written.changed(tmp_path) == ["a", "b"]
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("c" * 10)
    assert written.missing(tmp_path) == [] and written.changed(tmp_path) == ["a", "b"]


def test_the_fingerprint_is_of_the_names_and_contents_of_those_asked_for() -> None:
    def of(**contents: str) -> str:
        files = {name: FileRecord(1, hashlib.sha256(text.encode()).hexdigest()) for name, text in contents.items()}
        return Manifest("stage", files).fingerprint("a", "b")

    assert len({of(a="1"), of(a="2"), of(b="1"), of(a="1", b="1")}) == 4
    assert of(a="1", out="1") == of(a="1")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"stage": 1, "files": {"a": {}}}', '{"files": []}', "[" * 100_000,
     '{"stage": "s", "files": {}, "inputs": []}', '{"stage": "s", "files": {"a": {"size": "1", "sha256": "b"}}}'],
)  # fmt: skip
def test_a_damaged_manifest_is_bad_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BadData, match=r"manifest\.json"):
        Manifest.read(tmp_path)


@dataclasses.dataclass(frozen=True)
class Inner:
    share: float
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    pairs: tuple[tuple[str, float], ...] = ()
    named: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
    limit: int | None = None


def test_json_becomes_the_dataclass_with_those_in_it(tmp_path: Path) -> None:
    value = Outer(Inner(1, "b"), (("x", 0.5), ("y", 1)), {"n": Inner(0.25)})
    atomic.write_json(tmp_path / "some.json", dataclasses.asdict(value))
    assert read_json(tmp_path / "some.json", Outer, "cure it") == value
    with pytest.raises(MissingInput, match=r"other\.json is missing: cure it"):
        read_json(tmp_path / "other.json", Outer, "cure it")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the content cannot be []"),
        ({}, "it lacks inner"),
        ({"inner": {}}, "it lacks inner.share"),
        ({"inner": {"share": True}}, "inner.share cannot be True"),
        ({"inner": {"share": float("inf")}}, "inner.share cannot be inf"),
        ({"inner": {"share": 1, "kind": "c"}}, "inner.kind cannot be 'c'"),
        ({"inner": {"share": 1, "\x1b": 2}}, r"it has inner.\x1b, which is unknown"),
        ({"inner": {"share": 1}, "pairs": [["x", 1, 2]]}, "pairs cannot be ['x', 1, 2]"),
        ({"inner": {"share": 1}, "named": {"n": {"share": "1"}}}, "named.n.share cannot be '1'"),
        ({"inner": {"share": 1}, "limit": 1.5}, "limit cannot be 1.5"),
    ],
)
def test_json_of_another_shape_is_named_with_its_cure(tmp_path: Path, value: object, message: str) -> None:
    (tmp_path / "some.json").write_text(json.dumps(value))
    with pytest.raises(BadData) as caught:
        read_json(tmp_path / "some.json", Outer, "cure it")
    assert str(caught.value).endswith(f"some.json is damaged or of another version ({message}): cure it")
