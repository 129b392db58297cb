"""Pickles put together by hand, opcode by opcode; `pickletools` describes each of them."""

import struct

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


def number(value: float) -> bytes:
    """BINFLOAT."""
    return b"G" + struct.pack(">d", value)


def frame(content: bytes, size: int | None = None) -> bytes:
    """FRAME."""
    return b"\x95" + struct.pack("<Q", len(content) if size is None else size) + content


def dtype(code: str = "u1", order: str = "|", state: bytes = PLAIN_STATE, flags: bytes = b"\x89\x88") -> bytes:
    """A dtype as numpy writes it: REDUCE, then BUILD."""
    return name("numpy", "dtype") + text(code) + flags + b"\x87R(K\x03" + text(order) + state + b"tb"


EMPTY_ARRAY = name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def array(shape: bytes = b"K\x03\x85", kind: bytes = dtype(), data: bytes = raw(b"abc")) -> bytes:
    """An array as numpy writes it; by default uint8 of shape (3,)."""
    return EMPTY_ARRAY + b"(K\x01" + shape + kind + b"\x89" + data + b"tb"


def frombuffer(*arguments: bytes) -> bytes:
    """An array as protocol 5 writes it."""
    return name("numpy.core.numeric", "_frombuffer") + b"(" + b"".join(arguments) + b"tR"


def beside_images(attack: bytes) -> bytes:
    """A hidden set that is in order, with `attack` as one more value: nothing else is a reason to refuse it."""
    images = array(b"(K\x02K\x20K\x20K\x03t", data=raw(bytes(range(256)) * 24))
    return b"\x80\x04}" + text("data") + images + b"s" + text("extra") + attack + b"s."
