"""Mutated honest files: a value or one BadData comes out, and nothing else happens.

The long form of this is `python tests/bench/fuzz.py`.
"""

import itertools
import pickle
import pickletools
import random
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadData
from pipeline.rehearsal import digits
from pipeline.store import cifar
from pipeline.store.archive import extract
from pipeline.store.pickles import loads
from tests.hostile.archives import member, pax_record, tar_of, with_pax, zip_of
from tests.hostile.pickles import ARRAYS, CALLS, HONEST, LIES, ODDITIES, UNBALANCED, frame, images

SMALL = images(2)[:, ::16, ::16]
VALUE = {b"data": SMALL, "ids": np.arange(2), b"more": [1, -1, 2**40, 1.5, None, True, "é", b"x", (1, 2, 3, 4)]}
FILES = [
    *(pickle.dumps(VALUE, protocol) for protocol in (2, 3, 4, 5)),
    pickle.dumps({"f": np.asfortranarray(SMALL), "big": np.arange(3, dtype=">i8")}, 5),
    digits.batch("x", images(1), [3], ["a.png"]),
]


def tokens(data: bytes) -> list[bytes]:
    """The opcodes of a pickle with their arguments, without PROTO, FRAME and STOP."""
    starts = [position or 0 for _, _, position in pickletools.genops(data)] + [len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(starts)]
    return [piece for piece in pieces if piece[:1] not in b"\x80\x95."]


TOKENS = [tokens(data) for data in FILES]
# Honest opcodes and attacks; among them is nearly every opcode there is, the others come as single bytes.
PIECES = [*itertools.chain(*TOKENS), *(CALLS | ARRAYS | LIES | ODDITIES | UNBALANCED).values()]
ANY_PIECE = st.sampled_from(PIECES) | st.binary(min_size=1, max_size=9)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An honest pickle's opcodes with some removed, repeated, put elsewhere, or replaced by others."""
    pieces = list(draw(st.sampled_from(TOKENS)))
    for _ in range(draw(st.integers(0, 5))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(pieces))] * 2)))
        how = draw(st.sampled_from(["remove", "repeat", "insert", "replace", "splice"]))
        if how == "remove":
            del pieces[at : min(end, at + 3)]
        elif how == "repeat":
            pieces[at:at] = pieces[at:end]
        elif how == "splice":
            pieces[at:] = draw(st.sampled_from(TOKENS))[end:]
        else:
            pieces[at : at + (how == "replace")] = draw(st.lists(ANY_PIECE, min_size=1, max_size=3))
    content = b"".join(pieces) + b"."
    protocol = draw(st.sampled_from([b"\x80\x02", b"\x80\x04"]))
    return protocol + (frame(content) if draw(st.booleans()) else content)


def changed(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bytes flipped, cut out, repeated or replaced."""
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


def loads_or_refuses(read: Callable[[], object]) -> bool:
    """Whether it loads."""
    try:
        read()
    except BadData as error:
        assert str(error).isprintable() and len(str(error)) < 500
        return False
    return True


@settings(max_examples=500, deadline=None, database=None)
@given(mutated())
def test_mutated_pickles_load_or_are_refused(data: bytes) -> None:
    loads_or_refuses(lambda: loads(data, "some.pkl"))


@pytest.mark.parametrize("honest", FILES, ids=["2", "3", "4", "5", "other orders", "python 2"])
def test_changed_bytes_load_or_are_refused(honest: bytes) -> None:
    assert loads(honest)
    rng = random.Random(0)
    loaded = sum(loads_or_refuses(lambda: loads(changed(honest, rng), "some.pkl")) for _ in range(1000))
    assert 0 < loaded < 950  # were all refused at once, nothing behind the first opcodes would ever be tried


def test_a_changed_hidden_set_is_read_or_refused(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "hidden.pkl"
    for _ in range(300):
        path.write_bytes(changed(HONEST[:400], rng) + HONEST[400:])  # there are the opcodes
        loads_or_refuses(lambda: list(cifar.read_hidden(path).chunks()))


CONTENT = {"a": b"abc" * 300, "folder/b": b"xyz", "folder/" + "long" * 40: b"\0" * 2000}
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zip_of(CONTENT),
    "stored zip": lambda: zip_of(CONTENT, 0),
    "tar": lambda: tar_of(CONTENT),
    "pax": lambda: with_pax(pax_record("path", "b"), pax_record("size", "3")),
    "link": lambda: tar_of({}, then=[member("out", tarfile.SYMTYPE, ".."), member("out/evil")]),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_changed_archives_unpack_or_are_refused(kind: str, tmp_path: Path) -> None:
    data, rng, path = ARCHIVES[kind](), random.Random(0), tmp_path / "download"
    for number in range(200):
        path.write_bytes(changed(data, rng))
        with tempfile.TemporaryDirectory(dir=tmp_path) as inside:
            loads_or_refuses(lambda inside=inside: extract(path, Path(inside)))  # type: ignore[misc]
            assert [entry for entry in tmp_path.rglob("*") if not entry.is_relative_to(inside)] == [path], number
            assert all(entry.is_dir() or entry.is_file() for entry in Path(inside).rglob("*"))
            assert not any(entry.is_symlink() for entry in Path(inside).rglob("*"))
