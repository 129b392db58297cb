"""Every crafted pickle, put together opcode by opcode: `pickletools` describes each opcode.

An attack is a piece of a pickle that leaves one value.  It stands beside images that are in order (`beside_images`), or
alone.  One that succeeds makes the file `canary` in the current folder, by `touch canary` or by importing
`canary_module`, which the test puts there.
"""

import pickle
import struct
from collections.abc import Callable, Mapping

import numpy as np

from tests.doubles import cpickle
from tests.support import images

Maker = Callable[[], bytes]

# --- opcodes ----------------------------------------------------------------------------------------------------

MINUS_ONE = b"J\xff\xff\xff\xff"
PLAIN_STATE = b"NNN" + MINUS_ONE * 2 + b"K\x00"


def name(*parts: str) -> bytes:
    """GLOBAL."""
    return b"c" + "\n".join(parts).encode() + b"\n"


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def long_text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def raw(value: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value: int) -> bytes:
    """LONG1 of 8 bytes."""
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def frame(content: bytes, size: int | None = None) -> bytes:
    """FRAME."""
    return b"\x95" + struct.pack("<Q", len(content) if size is None else size) + content


def dtype(code: str = "u1", order: str = "|", state: bytes = PLAIN_STATE) -> bytes:
    """A dtype as numpy writes it: REDUCE, then BUILD."""
    return _unbuilt_dtype(code) + b"(K\x03" + text(order) + state + b"tb"


def _unbuilt_dtype(code: str) -> bytes:
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R"


_RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
EMPTY_ARRAY = _RECONSTRUCT + name("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def array(shape: bytes = b"K\x03\x85", kind: bytes = dtype(), data: bytes = raw(b"abc")) -> bytes:
    """An array as numpy writes it; by default uint8 of shape (3,)."""
    return EMPTY_ARRAY + b"(K\x01" + shape + kind + b"\x89" + data + b"tb"


def frombuffer(*arguments: bytes) -> bytes:
    """An array as protocol 5 writes it."""
    return name("numpy.core.numeric", "_frombuffer") + b"(" + b"".join(arguments) + b"tR"


def beside_images(attack: bytes) -> bytes:
    """A test set that is in order, with `attack` as one more value: nothing else is a reason to refuse it."""
    pixels = array(b"(K\x02K\x20K\x20K\x03t", data=raw(bytes(range(256)) * 24))
    return b"\x80\x04}" + text("data") + pixels + b"s" + text("extra") + attack + b"s."


def alone(attack: bytes) -> bytes:
    """An attack as the whole pickle."""
    return b"\x80\x04" + attack + b"."


def made(content: bytes) -> Maker:
    """`content`, as one that is made on demand."""
    return lambda: content


# --- attacks that want something called, imported or changed ----------------------------------------------------

TOUCH = text("touch canary") + b"\x85R"
SYSTEM = name("os", "system") + TOUCH
_OS = name("builtins", "__import__") + text("os") + b"\x85R"

CALLS = {
    # a function by name, called
    "os.system": SYSTEM,
    "import alone": name("canary_module", "x"),
    "getattr": name("builtins", "getattr") + _OS + text("system") + b"\x86R" + TOUCH,
    "nested loads": name("pickle", "loads") + raw(b"\x80\x02" + SYSTEM + b".") + b"\x85R",
    # numpy's and codecs' own, not as a writer of arrays calls them
    "numpy.memmap": name("numpy", "memmap") + b"(" + text("canary") + text("u1") + text("w+") + b"K\x00K\x01tR",
    "ndarray called": name("numpy", "ndarray") + integer(2**40) + b"\x85\x85R",
    "call without a tuple": name("numpy", "dtype") + b"]R",
    "encode with another codec": name("_codecs", "encode") + text("abc") + text("rot13") + b"\x86R",
    "encode of no latin1": name("_codecs", "encode") + text("\u0100") + text("latin1") + b"\x86R",
    "scalar of objects": name("numpy.core.multiarray", "scalar") + dtype("O8") + raw(b"\x41" * 8) + b"\x86R",
    "scalar of too many bytes": name("numpy.core.multiarray", "scalar") + dtype() + raw(b"ab") + b"\x86R",
    "scalar of no bytes": name("numpy._core.multiarray", "scalar") + dtype() + b"K\x01\x86R",
    "scalar of an unbuilt dtype": name("numpy._core.multiarray", "scalar")
    + _unbuilt_dtype("u1")
    + raw(b"a")
    + b"\x86R",
    "_reconstruct of another class": _RECONSTRUCT + name("numpy", "memmap") + b"K\x00\x85C\x01b\x87R",
    "_reconstruct with a shape": _RECONSTRUCT + name("numpy", "ndarray") + b"J\xff\xff\xff\x7f\x85C\x01b\x87R",
    "_reconstruct of objects": _RECONSTRUCT + name("numpy", "ndarray") + b"K\x00\x85C\x01O\x87R",
    # the other ways to a function or a class, and to changing one
    "INST": b"(" + text("touch canary") + b"ios\nsystem\n",
    "NEWOBJ": name("subprocess", "Popen") + text("touch canary") + b"\x85\x81",
    "EXT1": b"\x82\x01",
    "BINPERSID": text("canary") + b"Q",
    "NEXT_BUFFER": b"\x97",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93" + TOUCH,
    "STACK_GLOBAL dotted": text("numpy") + text("dtype.__class__.mro") + b"\x93)R",
    "STACK_GLOBAL of bytes": b"U\x02osU\x06system\x93" + TOUCH,
    "STACK_GLOBAL with an escape": text("\x1b[31m\n") + text("\x07") + b"\x93",
    "GLOBAL endless": b"c" + b"a" * 1_000_000,
    "GLOBAL not ASCII": b"c\xff\xfe\x1b[31m\nb\r\n",
    "a dtype as the value": dtype(),
    "BUILD on a dict": b"}}b",
    "BUILD on a function": name("_codecs", "encode") + b"}" + text("__doc__") + text("x") + b"sb",
    "BUILD with a dict": EMPTY_ARRAY + b"}b",
}

# --- arrays whose pickle would crash numpy, read foreign memory or take all of it -------------------------------

_STATE = EMPTY_ARRAY + b"(K\x01K\x03\x85" + dtype()  # of an array, as far as its dtype

ARRAYS = {
    "dtype object": array(kind=dtype("O8"), data=raw(b"\x41" * 24)),
    "dtype long double": array(kind=dtype("f16", "<"), data=raw(b"\0" * 48)),
    "dtype with align": name("numpy", "dtype") + text("u1") + b"\x88\x88\x87R",
    "dtype state: order": array(kind=dtype(order="<")),
    "dtype state: size": array(kind=dtype(state=b"NNNK\x08K\x08K\x00")),
    "dtype unbuilt": array(kind=_unbuilt_dtype("u1")),
    "dtype None": array(kind=b"N"),
    "dtype built twice": dtype() + b"(K\x03" + text("|") + PLAIN_STATE + b"tb",
    "shape negative": array(MINUS_ONE + b"\x85"),
    "shape overflowing with zero": array(integer(2**63 - 1) * 2 + b"K\x00\x87", data=raw(b"")),
    "shape mismatched": array(b"K\x04\x85"),
    "shape of bool": array(b"\x88K\x03\x86"),
    "shape of a list": array(b"](K\x03e"),
    "shape of nine axes": array(b"(K\x03" + b"K\x01" * 8 + b"t"),
    "array built twice": array() + b"(K\x01K\x03\x85" + dtype() + b"\x89" + raw(b"xyz") + b"tb",
    "array never built": EMPTY_ARRAY,
    "array that holds itself": EMPTY_ARRAY + b"q\x00(K\x01K\x03\x85" + dtype() + b"\x89h\x00tb",
    "array of a list": array(data=b"]"),
    "array of version 2": EMPTY_ARRAY + b"(K\x02K\x03\x85" + dtype() + b"\x89" + raw(b"abc") + b"tb",
    "array with a number for its order": _STATE + b"K\x00" + raw(b"abc") + b"tb",
    "array of bool 2": array(kind=dtype("b1")),
    "array of order Q": frombuffer(raw(b"abc"), dtype(), b"K\x03\x85", text("Q")),
}

# --- attacks on memory, time and the parser ---------------------------------------------------------------------

LIES = {  # sizes that are not true
    "memo index": b"Nr\xff\xff\xff\x7f",
    "BINBYTES": b"B\xff\xff\xff\xffabc",
    "LONG1 of 9 bytes": b"\x8a\x09" + b"\xff" * 9,
    "FRAME of too much": frame(b"N", 2**62),
    "FRAME of nothing": frame(b"") + b"N",
    "FRAME across an opcode": frame(b"C", 1) + b"\x01aN",
}

ODDITIES = {  # opcodes that no writer of these files needs, and values that do not fit each other
    "text that is no UTF-8": b"\x8c\x02\xff\xfe",
    "unknown opcode": b"\xff",
    "cycle of a list": b"]q\x00h\x00a",
    "list as a key": b"}]Ns",
    "duplicate key": b"}(" + text("data") + b"K\x01" + text("data") + b"K\x02u",
    "items without a value": b"}(" + text("data") + b"u",
    "items into a list": b"](" + text("data") + b"Nu",
    "append to a dict": b"}Na",
    "TUPLE2 across a mark": b"N(N\x86",
}

UNBALANCED = {  # wrong only where nothing else is on the stack
    "memo of a mark": b"(q\x00N",
    "APPENDS without a mark": b"]Ne",
    "STOP within a mark": b"(N",
    "no value": b"",
    "two values": b"NN",
}


def swapped_arrays() -> bytes:
    """3,000 arrays in foreign byte order, of which each wants a copy of the same bytes."""
    one = EMPTY_ARRAY + b"(K\x01M\x40\x9c\x85h\x01\x89h\x00tb"
    return raw(b"\0" * 80_000) + b"\x94(" + dtype("u2", ">") + b"\x94" + one * 3000 + b"t\x86"


def bools() -> bytes:
    """90,000 arrays of bool, for which the same bytes are looked at."""
    arguments = raw(b"\0" * 5_000_000) + dtype("b1") + b"J@KL\0\x85" + text("C")
    return (
        name("numpy.core.numeric", "_frombuffer")
        + b"\x94("
        + arguments
        + b"t\x94("
        + b"h\x00h\x01R" * 90_000
        + b"t\x87"
    )


def encodings() -> bytes:
    """5,000 texts that become bytes, of the same long text."""
    one = name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R"
    return long_text("a" * 100_000) + b"\x94(" + one * 5000 + b"t\x86"


LARGE: dict[str, Maker] = {
    "long text": lambda: long_text("a" * 5000),
    "long bytes as a key": lambda: b"}" + raw(b"a" * 5000) + b"Ns",
    "very much text of four bytes a letter": lambda: b"(" + long_text("\U0001f600" + "a" * 4092) * 5000 + b"t",
    "nested marks": lambda: b"(" * 290_000,
    "nested tuples": lambda: b")" + b"\x85" * 290_000,
    "opcodes": lambda: b"N" * 1_000_000,
    "long bytes again and again": lambda: b"(" + raw(b"a" * 5000) + b"\x94" + b"h\x00" * 100_000 + b"t",
    "swapped arrays again and again": swapped_arrays,
    "bools looked at again and again": bools,
    "encoded again and again": encodings,
    "colliding integers": lambda: b"}(" + b"".join(integer(n << 55) + b"N" for n in range(100)) + b"u",
    "small dicts again and again": lambda: b"](}C\x01aNs\x94" + b"h\x00" * 200_000 + b"e",
}

_PARTS = LARGE | {kind: made(content) for kind, content in (LIES | ODDITIES).items()}
BOMBS = _PARTS | {kind: made(content) for kind, content in UNBALANCED.items()}

# --- whole files ------------------------------------------------------------------------------------------------


HONEST = pickle.dumps({b"data": images(2), b"ids": np.arange(2)}, protocol=4)
PYTHON_2 = cpickle.batch("x", images(2), [1, 2], ["a.png", "b.png"])


# How files begin that are no pickles of protocol 2 to 5.
IMPOSTORS: Mapping[str, bytes] = {
    "empty": b"",
    "html": b"\xef\xbb\xbf\n <!DOCTYPE html><html>",
    "zip": b"PK\x03\x04" + HONEST,
    "protocol 0 with a call": b"cos\nsystem\n(S'touch canary'\ntR.",
    "declared protocol 1": b"\x80\x01N.",
    "protocol 6": b"\x80\x06N.",
}

# Honest up to where it ends, and then something more.
TAILS: Mapping[str, bytes] = {
    "a value": b"N", "STOP": b".", "another pickle": HONEST, "a call": b"\x80\x02" + SYSTEM + b"."
}  # fmt: skip


# Refused by the reader, wherever the file lies.
REFUSED: dict[str, Maker] = {
    **{f"call: {kind}": made(beside_images(attack)) for kind, attack in CALLS.items()},
    **{f"array: {kind}": made(beside_images(attack)) for kind, attack in ARRAYS.items()},
    **{f"bomb: {kind}": lambda make=make: beside_images(make()) for kind, make in _PARTS.items()},  # type: ignore[misc]
    **{f"bomb: {kind}": made(alone(attack)) for kind, attack in UNBALANCED.items()},
    **{f"impostor: {kind}": made(content) for kind, content in IMPOSTORS.items()},
    **{f"tail: {kind}": made(HONEST + tail) for kind, tail in TAILS.items()},
    **{f"tail in a frame: {kind}": made(b"\x80\x04" + frame(array() + b"." + tail)) for kind, tail in TAILS.items()},
    "truncated: protocol 4": made(HONEST[:3000]),
    "truncated: python 2": made(PYTHON_2[:-100]),
}
