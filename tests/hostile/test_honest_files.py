"""Files that real versions of numpy wrote (write_honest.py) load, and hold what was written."""

import functools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.store import cifar
from tests.hostile import write_honest

FOLDER = Path(__file__).with_name("honest")
WRITERS = ["numpy-1.26", "numpy-2.x"]
HIDDEN = {honest.name: honest for honest in write_honest.hidden_sets()}
NUMBERS = {honest.name: honest for honest in write_honest.numbers()}


@functools.cache
def written(writer: str) -> dict[str, bytes]:
    """The files of a version of numpy."""
    with tarfile.open(FOLDER / f"{writer}.tar.xz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file is not None}


def assert_same(found: Any, expected: Any) -> None:
    """Equal values of equal types; arrays of equal dtype, but for the byte order, which becomes this machine's."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray) and found.dtype.isnative and not found.flags.writeable
        np.testing.assert_array_equal(found, expected.astype(expected.dtype.newbyteorder("=")), strict=True)
    elif isinstance(expected, list):
        assert type(found) is list and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("writer", WRITERS)
def test_the_files_are_all_there_and_as_they_were_written(writer: str) -> None:
    files = written(writer)
    assert list(files) == [*HIDDEN, *NUMBERS]
    for name, content in files.items():
        assert content[:2] == bytes([0x80, (HIDDEN | NUMBERS)[name].protocol])
    new = any(b"numpy._core" in content for content in files.values())
    assert new == (writer == "numpy-2.x")
    # Only protocol 5 has a way of its own for arrays that are contiguous.
    in_band = {name for name, content in files.items() if b"_frombuffer" in content}
    assert in_band and all("/5-" in name for name in in_band)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_value_is_what_was_written(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "some.pkl"
    for name, honest in (HIDDEN | NUMBERS).items():
        path.write_bytes(written(writer)[name])
        found = cifar.load(path)
        assert isinstance(found, dict) and list(found) == list(honest.value), name
        for key, value in honest.value.items():
            assert_same(found[key], value)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("layout", write_honest.LAYOUTS)
def test_every_hidden_set_has_the_images_and_the_ids(writer: str, layout: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar_test_nolabel.pkl"
    for name, honest in HIDDEN.items():
        if f"-{layout}-" not in name:
            continue
        path.write_bytes(written(writer)[name])
        hidden = cifar.read_hidden(path)
        assert len(hidden) == 2 and hidden.layout.expected, name
        np.testing.assert_array_equal(next(hidden.chunks()), write_honest.images(), strict=True)
        own = {"ids", b"ids"} & set(honest.value)
        assert hidden.own_ids == bool(own), name
        np.testing.assert_array_equal(hidden.ids, np.array([7, 300] if own else [0, 1], dtype=np.int64), strict=True)
