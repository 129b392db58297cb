"""Files that real versions of numpy wrote (write_honest.py) load, and hold what was written."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.store import cifar
from tests.hostile import write_honest

FOLDER = Path(__file__).with_name("honest")


def assert_same(found: Any, expected: Any) -> None:
    """Equal values of equal types; arrays of equal dtype, but for the byte order, which becomes this machine's."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray) and found.dtype.isnative and not found.flags.writeable
        np.testing.assert_array_equal(found, expected.astype(expected.dtype.newbyteorder("=")), strict=True)
    elif isinstance(expected, list):
        assert type(found) is list
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("writer", ["numpy-1.26", "numpy-2.x"])
def test_what_numpy_wrote_is_read(writer: str, tmp_path: Path) -> None:
    path, modules = tmp_path / "cifar_test_nolabel.pkl", b""
    with tarfile.open(FOLDER / f"{writer}.tar.xz") as archive:
        for name, _, expected in [*write_honest.hidden_sets(), *write_honest.numbers()]:
            stream = archive.extractfile(name)
            assert stream is not None
            path.write_bytes(stream.read())
            modules += path.read_bytes()[:400]
            value = cifar.load(path)
            assert isinstance(value, dict) and list(value) == list(expected), name
            for key in expected:
                assert_same(value[key], expected[key])
            if name.startswith("hidden"):
                hidden = cifar.read_hidden(path)
                assert hidden.layout in cifar.EXPECTED, name
                np.testing.assert_array_equal(next(hidden.chunks()), write_honest.images(), strict=True)
                assert hidden.ids_key == ("ids" if len(expected) == 2 else None), name
                own = [7, 300] if hidden.ids_key else [0, 1]
                np.testing.assert_array_equal(hidden.ids, np.array(own, dtype=np.int64), strict=True)
    assert (b"numpy._core" in modules) == (writer == "numpy-2.x") and b"_frombuffer" in modules
