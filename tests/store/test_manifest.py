from pathlib import Path

import pytest

from pipeline.errors import BadData
from pipeline.store.manifest import FileRecord, Manifest, records, versions


def test_a_manifest_tells_what_is_missing_or_cut(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name * 10)
    written = Manifest("stage", records(tmp_path, tmp_path.iterdir()), {"in": "1"}, {"fact": [1]}, versions("numpy"))
    written.write(tmp_path)
    assert Manifest.read(tmp_path) == written
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("short")
    assert written.missing(tmp_path) == ["a", "b"]


def test_the_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    def of(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return Manifest("stage", records(tmp_path, [tmp_path / name])).fingerprint("a", "b")

    assert len({of("a", "1"), of("a", "2"), of("b", "1")}) == 3
    assert of("a", "1") == of("a", "1")


def test_a_fingerprint_can_leave_files_out(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).write_text(name)
    both = Manifest("stage", records(tmp_path, tmp_path.iterdir()))
    alone = Manifest("stage", records(tmp_path, [tmp_path / "in"]))
    assert both.fingerprint("in") == alone.fingerprint("in") != both.fingerprint("in", "out")


def test_the_record_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert FileRecord.of(tmp_path / "empty") == FileRecord(0, expected)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"stage": 1, "files": {"a": {}}}', '{"files": []}', "[" * 100_000,
     '{"stage": "s", "files": {}, "inputs": []}', '{"stage": "s", "files": {"a": {"size": "1", "sha256": "b"}}}'],
)  # fmt: skip
def test_a_damaged_manifest_is_bad_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BadData, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_without_a_manifest_the_stage_has_not_finished(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) is None
