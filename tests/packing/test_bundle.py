"""The zip: the same files make the same bytes, and what differs is noticed."""

import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.packing import bundle

FOLDERS = ("data/raw", "out")


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes | Path]:
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 5000)
    return {"a.py": b"print()\n", "models/run/weights": tmp_path / "weights"}


def test_the_bytes_do_not_depend_on_when_and_where(tmp_path: Path, members: dict[str, bytes | Path]) -> None:
    bundle.write(tmp_path / "one.zip", "run", members, FOLDERS)
    os.utime(tmp_path / "weights", (0, 0))
    (tmp_path / "weights").chmod(0o600)
    bundle.write(tmp_path / "two.zip", "run", members, FOLDERS)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_it_unpacks_to_one_folder_whose_tree_is_as_find_prints_it(
    tmp_path: Path, members: dict[str, bytes | Path]
) -> None:
    bundle.write(tmp_path / "a.zip", "run", members, FOLDERS)
    with zipfile.ZipFile(tmp_path / "a.zip") as source:
        assert {oct(info.external_attr >> 16) for info in source.infolist()} == {"0o100644", "0o40755"}
        source.extractall(tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["run"]
    unpacked = tmp_path / "there/run"
    assert (unpacked / "models/run/weights").read_bytes() == (tmp_path / "weights").read_bytes()
    found = subprocess.run(["find", ".", "-type", "d"], cwd=unpacked, check=True, capture_output=True, text=True).stdout
    assert sorted(found.split()) == bundle.tree(members, FOLDERS)


CHANGES: dict[str, Callable[[Path, dict[str, bytes | Path]], object]] = {
    "another content": lambda _zip, members: members.update({"a.py": b"print(1)"}),
    "one file more": lambda _zip, members: members.update({"b.py": b""}),
    "one file less": lambda _zip, members: members.pop("a.py"),
    "cut": lambda path, _members: path.write_bytes(path.read_bytes()[:-30]),
    "a flipped byte": lambda path, _members: flip(path),
    "no zip": lambda path, _members: path.write_bytes(b"hello"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_differs_is_noticed(tmp_path: Path, members: dict[str, bytes | Path], change: str) -> None:
    path = tmp_path / "a.zip"
    bundle.write(path, "run", members, FOLDERS)
    assert bundle.holds(path, "run", members, FOLDERS)
    CHANGES[change](path, members)
    assert not bundle.holds(path, "run", members, FOLDERS)


def test_a_damaged_package_is_no_traceback(tmp_path: Path, members: dict[str, bytes | Path]) -> None:
    path = tmp_path / "a.zip"
    bundle.write(path, "run", members, FOLDERS)
    whole, held = path.read_bytes(), set()
    for place in range(0, len(whole), len(whole) // 200):
        content = bytearray(whole)
        content[place] ^= 0x55
        path.write_bytes(content)
        held.add(bundle.holds(path, "run", members, FOLDERS))
    assert False in held
