"""Mutated honest files: a value or one BadData comes out, and nothing else happens.

The long form of this is `python tests/bench/fuzz.py`.
"""

import itertools
import pickle
import pickletools
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import BadData
from pipeline.store import cifar
from pipeline.store.archive import extract
from pipeline.store.pickles import loads
from tests.doubles import cpickle
from tests.hostile.archives import member, pax_record, tar_of, with_pax, zip_of
from tests.hostile.pickles import ARRAYS, CALLS, HONEST, LIES, ODDITIES, UNBALANCED, frame
from tests.support import images

SMALL = images(2)[:, ::16, ::16]
VALUE = {b"data": SMALL, "ids": np.arange(2), b"more": [1, -1, 2**40, 1.5, None, True, "é", b"x", (1, 2, 3, 4)]}
PICKLES = [
    *(pickle.dumps(VALUE, protocol) for protocol in (2, 3, 4, 5)),
    pickle.dumps({"f": np.asfortranarray(SMALL), "big": np.arange(3, dtype=">i8")}, 5),
    cpickle.batch("x", images(1), [3], ["a.png"]),
]
CONTENT = {"a": b"abc" * 300, "folder/b": b"xyz", "folder/" + "long" * 40: b"\0" * 2000}
ARCHIVES = [
    zip_of(CONTENT),
    zip_of(CONTENT, 0),
    tar_of(CONTENT),
    with_pax(pax_record("path", "b"), pax_record("size", "3")),
    tar_of({}, then=[member("out", tarfile.SYMTYPE, ".."), member("out/evil")]),
]


def tokens(data: bytes) -> list[bytes]:
    """The opcodes of a pickle with their arguments, without PROTO, FRAME and STOP."""
    starts = [position or 0 for _, _, position in pickletools.genops(data)] + [len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(starts)]
    return [piece for piece in pieces if piece[:1] not in b"\x80\x95."]


TOKENS = [tokens(data) for data in PICKLES]
# Honest opcodes and attacks; among them is nearly every opcode there is, the others come as single bytes.
PIECES = [*itertools.chain(*TOKENS), *(CALLS | ARRAYS | LIES | ODDITIES | UNBALANCED).values()]
PIECE = st.sampled_from(PIECES) | st.binary(min_size=1, max_size=9)
BYTES = st.binary(max_size=4) | st.sampled_from([b"\0" * 4, b"\xff" * 4, b"9", b"../", b"PK\x05\x06"])


@st.composite
def mutated_opcodes(draw: st.DrawFn) -> bytes:
    """An honest pickle with opcodes replaced by others, by parts of other files and by nothing."""
    pieces = list(draw(st.sampled_from(TOKENS)))
    for _ in range(draw(st.integers(0, 5))):
        at, cut = draw(st.integers(0, len(pieces))), draw(st.integers(0, 3))
        pieces[at : at + cut] = draw(st.lists(PIECE, max_size=3))
    content = b"".join(pieces) + b"."
    protocol = draw(st.sampled_from([b"\x80\x02", b"\x80\x04"]))
    return protocol + (frame(content) if draw(st.booleans()) else content)


@st.composite
def mutated_bytes(draw: st.DrawFn, files: list[bytes], end: int = 2**20) -> bytes:
    """An honest file with bytes before `end` replaced by others, by more and by nothing."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        at, cut = draw(st.integers(0, min(len(data), end))), draw(st.sampled_from([0, 1, 2, 8, 512]))
        data = data[:at] + draw(st.binary(min_size=cut, max_size=cut) | BYTES) + data[at + cut :]
    return data


def value_or_refusal(read: Callable[[], object]) -> None:
    try:
        read()
    except BadData as error:
        assert str(error).isprintable() and len(str(error)) < 500


LONG = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@LONG
@given(mutated_opcodes() | mutated_bytes(PICKLES))
def test_a_changed_pickle_is_loaded_or_refused(data: bytes) -> None:
    value_or_refusal(lambda: loads(data, "some.pkl"))


@LONG
@given(mutated_bytes([HONEST], 400))  # there are the opcodes
def test_a_changed_hidden_set_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "hidden.pkl").write_bytes(data)
    value_or_refusal(lambda: list(cifar.read_hidden(tmp_path / "hidden.pkl").chunks()))


@LONG
@given(mutated_bytes(ARCHIVES))
def test_a_changed_archive_is_unpacked_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "download"
    path.write_bytes(data)
    with tempfile.TemporaryDirectory(dir=tmp_path) as inside:
        value_or_refusal(lambda: extract(path, Path(inside)))
        assert [entry for entry in tmp_path.rglob("*") if not entry.is_relative_to(inside)] == [path]
        assert all(entry.is_dir() or entry.is_file() for entry in Path(inside).rglob("*"))
        assert not any(entry.is_symlink() for entry in Path(inside).rglob("*"))


@pytest.mark.parametrize("honest", PICKLES)
def test_what_is_changed_would_load(honest: bytes) -> None:
    assert loads(honest)
