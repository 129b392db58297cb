"""Mutated honest files: a value or one BadData comes out, and nothing else happens.

The long form of this is `python tests/bench/fuzz.py`.
"""

import itertools
import pickle
import pickletools
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadData
from pipeline.rehearsal import digits
from pipeline.store.archive import extract
from pipeline.store.pickles import loads
from tests.hostile.meanings import images
from tests.hostile.opcodes import EMPTY_ARRAY, array, dtype, frame, frombuffer, name, raw, text
from tests.hostile.packing import pax_record, tar_of, tar_with, with_pax, zip_of

SMALL = images(2)[:, ::16, ::16]
VALUE = {b"data": SMALL, "ids": np.arange(2), b"more": [1, -1, 2**40, 1.5, None, True, "é", b"x", (1, 2, 3, 4)]}
HONEST = [
    *(pickle.dumps(VALUE, protocol) for protocol in (2, 3, 4, 5)),
    pickle.dumps({"f": np.asfortranarray(SMALL), "big": np.arange(3, dtype=">i8")}, 5),
    digits.batch("x", images(1), [3], ["a.png"]),
]


def tokens(data: bytes) -> list[bytes]:
    """The opcodes of a pickle with their arguments, without PROTO, FRAME and STOP."""
    starts = [position or 0 for _, _, position in pickletools.genops(data)] + [len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(starts)]
    return [piece for piece in pieces if piece[:1] not in b"\x80\x95."]


# What follows an opcode, by pickletools' name of it; lengths are true, so that the walk goes on behind them.
NUMBER = {"uint1": "<B", "uint2": "<H", "int4": "<i", "uint4": "<I", "uint8": "<Q", "float8": ">d"}
COUNTED = {
    "string1": "<B", "string4": "<i", "bytes1": "<B", "bytes4": "<I", "bytes8": "<Q", "bytearray8": "<Q",
    "unicodestring1": "<B", "unicodestring4": "<I", "unicodestring8": "<Q", "long1": "<B", "long4": "<i",
}  # fmt: skip
LINE = st.sampled_from([b"1", b"01", b"9L", b"1.5", b"'x'", b"numpy", b"dtype", b"\xff\x1b"]).map(lambda x: x + b"\n")
CONTENT = st.sampled_from([b"", b"u1", b"|", b"<", b"numpy", b"ndarray", b"latin1", b"data", b"\xff\xfe"]) | st.binary()


def argument(kind: str | None) -> st.SearchStrategy[bytes]:
    """Any argument of this kind, and now and then one that lies."""
    if kind is None:
        return st.just(b"")
    if kind in NUMBER:
        size = struct.calcsize(NUMBER[kind])
        few = st.integers(0, 5).map(lambda n: struct.pack(NUMBER[kind], n))
        return few | st.binary(min_size=size, max_size=size)
    if kind in COUNTED:
        return CONTENT.map(lambda content: struct.pack(COUNTED[kind], len(content)) + content)
    return st.tuples(LINE, LINE).map(b"".join) if kind.endswith("pair") else LINE


ANY_OPCODE = st.sampled_from(pickletools.opcodes).flatmap(
    lambda opcode: argument(opcode.arg.name if opcode.arg else None).map(opcode.code.encode("latin-1").__add__)
)
PIECES = [EMPTY_ARRAY, dtype(), array(), raw(b"abc"), raw(b"a" * 5000), b"X\x88\x13\0\0" + b"a" * 5000]
PIECES += [frombuffer(raw(b"abc"), dtype(), b"K\x03\x85", text("C")), name("_codecs", "encode"), b"K\x03\x85"]
GRAMMAR = st.sampled_from(PIECES) | ANY_OPCODE


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An honest pickle's opcodes with some removed, repeated, put elsewhere, or replaced by others."""
    pieces = tokens(draw(st.sampled_from(HONEST)))
    for _ in range(draw(st.integers(0, 5))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(pieces))] * 2)))
        how = draw(st.sampled_from(["remove", "repeat", "insert", "replace", "splice"]))
        if how == "remove":
            del pieces[at : min(end, at + 3)]
        elif how == "repeat":
            pieces[at:at] = pieces[at:end]
        elif how == "splice":
            pieces[at:] = tokens(draw(st.sampled_from(HONEST)))[end:]
        else:
            pieces[at : at + (how == "replace")] = draw(st.lists(GRAMMAR, min_size=1, max_size=3))
    content = b"".join(pieces) + b"."
    protocol = draw(st.sampled_from([b"\x80\x02", b"\x80\x04"]))
    return protocol + (frame(content) if draw(st.booleans()) else content)


def changed(data: bytes, seed: int) -> bytes:
    """`data` with a few bytes flipped, cut out, repeated or replaced."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 6])):
        at, size = rng.randrange(len(out)), rng.choice([1, 2, 8, 512])
        how = rng.randrange(5)
        if how <= 1:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 2 and len(out) > size + 1:  # never empty
            del out[at : min(at + size, len(out) - 1)]
        elif how == 3:
            out[at:at] = out[at : at + size]
        else:
            out[at : at + size] = rng.choice([b"\0", b"\xff", b"9", b"../", b"PK\x05\x06"]) * rng.choice([1, 4])
    return bytes(out)


def loads_or_refuses(data: bytes) -> None:
    try:
        loads(data, "some.pkl")
    except BadData as error:
        assert str(error).isprintable() and len(str(error)) < 500


@settings(max_examples=700, deadline=None, database=None)
@given(mutated())
def test_mutated_pickles_load_or_are_refused(data: bytes) -> None:
    loads_or_refuses(data)


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(GRAMMAR, max_size=40).map(b"".join) | st.binary(max_size=200))
def test_any_opcodes_load_or_are_refused(content: bytes) -> None:
    for data in (content, b"\x80\x04" + content + b".", b"\x80\x04" + frame(content + b".")):
        loads_or_refuses(data)


@pytest.mark.parametrize("honest", HONEST, ids=["2", "3", "4", "5", "other orders", "python 2"])
def test_changed_bytes_load_or_are_refused(honest: bytes) -> None:
    assert loads(honest)
    for seed in range(1000):
        loads_or_refuses(changed(honest, seed))


def test_the_mutations_both_load_and_are_refused() -> None:
    # Were all refused at once, nothing behind the first opcodes would ever be tried.
    loaded = 0
    for seed in range(500):
        try:
            loads(changed(HONEST[2], seed))
            loaded += 1
        except BadData:
            pass
    assert 25 < loaded < 475


FILES = {"a": b"abc" * 300, "folder/b": b"xyz", "folder/" + "long" * 40: b"\0" * 2000}
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zip_of(FILES),
    "stored zip": lambda: zip_of(FILES, 0),
    "tar": lambda: tar_of(FILES),
    "pax": lambda: with_pax(pax_record("path", "b"), pax_record("size", "3")),
    "link": lambda: tar_with(b"2", "out", "..", "out/evil"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_changed_archives_unpack_or_are_refused(kind: str, tmp_path: Path) -> None:
    data = ARCHIVES[kind]()
    path = tmp_path / "download"
    for seed in range(250):
        path.write_bytes(changed(data, seed))
        with tempfile.TemporaryDirectory(dir=tmp_path) as inside:
            try:
                files = extract(path, Path(inside))
            except BadData as error:
                assert str(error).isprintable()
            else:
                assert all(file.is_file() and not file.is_symlink() for file in files)
            found = [entry for entry in tmp_path.rglob("*") if not entry.is_relative_to(inside)]
            assert found == [path], seed
            assert not any(entry.is_symlink() for entry in Path(inside).rglob("*"))
