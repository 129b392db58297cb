"""Attacks on memory, time and the parser.  The large ones are made on demand."""

import struct
from collections.abc import Callable

from tests.hostile.opcodes import EMPTY_ARRAY, array, dtype, frame, integer, long_text, name, raw, text


def laughs(levels: int) -> bytes:
    """Lists of ten references to the list before."""
    out = b"(]\x94" + text("lol") + b"a"
    for level in range(levels):
        out += b"]\x94(" + (b"h" + bytes([level])) * 10 + b"e"
    return out + b"t"


# A size that is a lie, in few bytes.
LIES = {
    "memo index": b"Nr\xff\xff\xff\x7f",
    "memo index unread": b"Nj\xff\xff\xff\x7f",
    "BINBYTES": b"B\xff\xff\xff\xffabc",
    "BINBYTES8": b"\x8e" + b"\xff" * 8 + b"abc",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40) + b"abc",
    "BINUNICODE": b"X\xff\xff\xff\xffabc",
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62) + b"abc",
    "BINSTRING negative": b"T\xff\xff\xff\xffabc",
    "LONG1 of 9 bytes": b"\x8a\x09" + b"\xff" * 9,
    "LONG4": b"\x8b" + struct.pack("<I", 1000) + b"\x01" * 1000,
    "FRAME of too much": frame(b"N", 2**62),
    "FRAME of nothing": frame(b"") + b"N",
    "FRAME in a FRAME": frame(frame(b"N") + b"0N"),
    "FRAME across an opcode": frame(b"C", 1) + b"\x01aN",
    "FRAME across an argument": frame(b"B\x05\0\0\0ab", 7) + b"cdeN",
    "FRAME across a FRAME": frame(b"N\x95", 2) + b"\x01" + b"\0" * 7 + b"N",
    "FRAME that hides a call": frame(b"B\x0e\0\0\0", 5) + b"cos\nsystem\n" + text("x") + b"N",
}

# Opcodes that no writer of these files needs, and values that do not fit each other.
ODDITIES = {
    "text that is no UTF-8": b"\x8c\x02\xff\xfe",
    "text with a surrogate": b"\x8c\x03\xed\xa0\x80",
    "FLOAT": b"F1.5\n",
    "STRING": b"S'abc'\n",
    "GET": b"Np0\ng0\n",
    "DUP": b"]" + b"2a" * 3,
    "POP": b"NN0",
    "PROTO again": b"\x80\x02N",
    "unknown opcode": b"\xff",
    "set": b"\x8f",
    "frozenset": b"(\x91",
    "cycle of a list": b"]q\x00h\x00a",
    "cycle of a dict": b"}q\x00K\x01h\x00s",
    "cycle through a tuple": b"]q\x00(h\x00h\x00ta",
    "list as a key": b"}]Ns",
    "tuple as a key": b"})Ns",
    "None as a key": b"}NNs",
    "global as a key": b"}" + name("numpy", "dtype") + b"Ns",
    "array as a key": b"}" + array() + b"Ns",
    "duplicate key": b"}(" + text("data") + b"K\x01" + text("data") + b"K\x02u",
    "duplicate key by SETITEM": b"}" + (text("data\x1b[31m\n") + b"Ns") * 2,
    "items without a value": b"}(" + text("data") + b"u",
    "items into a list": b"](" + text("data") + b"Nu",
    "append to a dict": b"}Na",
    "TUPLE2 across a mark": b"N(N\x86",
}

# What is wrong only where nothing else is on the stack.
UNBALANCED = {
    "memo of nothing": b"q\x00N",
    "memo of a mark": b"(q\x00N",
    "APPENDS without a mark": b"]Ne",
    "TUPLE without a mark": b"t",
    "STOP within a mark": b"(N",
    "two values": b"NN",
    "no value": b"",
}

LARGE: dict[str, Callable[[], bytes]] = {
    "long text": lambda: long_text("a" * 5000),
    "long bytes as a key": lambda: b"}" + raw(b"a" * 5000) + b"Ns",
    "very much text of four bytes a letter": lambda: b"(" + long_text("\U0001f600" + "a" * 4092) * 5000 + b"t",
    "decimal digits (LONG)": lambda: b"L" + b"9" * 1_000_000 + b"L\n",
    "nested marks": lambda: b"(" * 290_000,
    "nested tuples": lambda: b")" + b"\x85" * 290_000,
    "nested lists": lambda: b"]" * 100_000 + b"a" * 99_999,
    "nested dicts": lambda: b"}" + b"C\x01a}" * 90_000 + b"s" * 90_000,
    "opcodes": lambda: b"N" * 1_000_000,
    "as many memos as opcodes": lambda: b"(" + b"}\x94" * 200_000 + b"t",
    "billion laughs": lambda: laughs(40),
    "long bytes again and again": lambda: b"(" + raw(b"a" * 5000) + b"\x94" + b"h\x00" * 100_000 + b"t",
    "swapped arrays again and again": lambda: (
        raw(b"\0" * 80_000) + b"\x94(" + dtype("u2", ">") + b"\x94"
        + (EMPTY_ARRAY + b"(K\x01M\x40\x9c\x85h\x01\x89h\x00tb") * 3000 + b"t\x86"
    ),
    "bools looked at again and again": lambda: (
        name("numpy.core.numeric", "_frombuffer") + b"\x94(" + raw(b"\0" * 5_000_000) + dtype("b1")
        + b"J@KL\0\x85" + text("C") + b"t\x94(" + b"h\x00h\x01R" * 90_000 + b"t\x87"
    ),
    "encoded again and again": lambda: (
        long_text("a" * 100_000) + b"\x94("
        + (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 5000 + b"t\x86"
    ),
    "colliding integers again and again": lambda: (
        b"](}(" + b"".join(integer(n << 55) + b"N" for n in range(100)) + b"u\x94" + b"h\x00" * 100_000 + b"e"
    ),
    "small dicts again and again": lambda: b"](}C\x01aNs\x94" + b"h\x00" * 200_000 + b"e",
}  # fmt: skip


def made(content: bytes) -> Callable[[], bytes]:
    """`content`, as one of LARGE."""
    return lambda: content


# Each is a piece of a pickle; all but UNBALANCED would leave one value if somebody let them.
PARTS = LARGE | {kind: made(content) for kind, content in (LIES | ODDITIES).items()}
BOMBS = PARTS | {kind: made(content) for kind, content in UNBALANCED.items()}
