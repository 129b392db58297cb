"""Arrays whose pickle would crash numpy, read foreign memory or take all of it."""

from tests.hostile.opcodes import (
    EMPTY_ARRAY,
    MINUS_ONE,
    PLAIN_STATE,
    array,
    dtype,
    frombuffer,
    integer,
    name,
    number,
    raw,
    text,
)

_FIELDS = b"N(" + text("a") + text("b") + b"t}" + text("a") + dtype("O8") + b"K\x00\x86s" + MINUS_ONE * 2 + b"K\x3f"

DTYPES = {
    "object": array(kind=dtype("O8"), data=raw(b"\x41" * 24)),
    "void": array(kind=dtype("V3")),
    "struct": array(kind=dtype("V8", state=_FIELDS), data=raw(b"\x41" * 24)),
    "string": array(kind=dtype("S3")),
    "unicode": array(kind=dtype("U1"), data=raw(b"\xff" * 12)),
    "datetime": array(kind=dtype("M8", "<"), data=raw(b"\0" * 24)),
    "complex": array(kind=dtype("c8", "<"), data=raw(b"\0" * 24)),
    "long double": array(kind=dtype("f16", "<"), data=raw(b"\0" * 48)),
    "by commas": array(kind=dtype("u1,O")),
    "with an escape": array(kind=dtype("\x1b[31m")),
    "by number": name("numpy", "dtype") + b"K\x01\x89\x88\x87R",
    "by a list": name("numpy", "dtype") + b"]\x89\x88\x87R",
    "with align": name("numpy", "dtype") + text("u1") + b"\x88\x88\x87R",
    "state: order": array(kind=dtype(order="<")),
    "state: native order": array(kind=dtype("i8", "="), data=raw(b"\0" * 24)),
    "state: fields": array(kind=dtype(state=b"N" + text("f") + b"\x85}" + MINUS_ONE * 2 + b"K\x00")),
    "state: subarray": array(kind=dtype(state=text("O") + b"NN" + MINUS_ONE * 2 + b"K\x00")),
    "state: size": array(kind=dtype(state=b"NNNK\x08K\x08K\x00")),
    "state: flags": array(kind=dtype(state=b"NNN" + MINUS_ONE * 2 + b"K\x3f")),
    "state: metadata": array(kind=dtype(state=PLAIN_STATE + b"}")),
    "unbuilt": array(kind=name("numpy", "dtype") + text("u1") + b"\x89\x88\x87R"),
    "a global": array(kind=name("numpy", "dtype")),
    "None": array(kind=b"N"),
    "built twice": dtype() + b"(K\x03" + text("|") + PLAIN_STATE + b"tb",
}

SHAPES = {
    "negative": array(MINUS_ONE + b"\x85"),
    "overflowing": array(integer(2**62) + b"K\x04\x86", data=raw(b"")),
    "overflowing with zero": array(integer(2**63 - 1) + integer(2**63 - 1) + b"K\x00\x87", data=raw(b"")),
    "mismatched": array(b"K\x04\x85"),
    "huge": array(integer(10**12) + b"\x85"),
    "of bool": array(b"\x88K\x03\x86"),
    "of floats": array(number(3.0) + b"\x85"),
    "of a list": array(b"](K\x03e"),
}

STATES = {
    "built twice": array() + b"(K\x01K\x03\x85" + dtype() + b"\x89" + raw(b"xyz") + b"tb",
    "never built": EMPTY_ARRAY,
    "that escapes before its BUILD": EMPTY_ARRAY + b"q\x00]h\x00a\x86",
    "that holds itself": EMPTY_ARRAY + b"q\x00(K\x01K\x03\x85" + dtype() + b"\x89h\x00tb",
    "of a list": array(data=b"]"),
    "of an array": array(data=array()),
    "of version 2": EMPTY_ARRAY + b"(K\x02K\x03\x85" + dtype() + b"\x89" + raw(b"abc") + b"tb",
    "with a number for its order": EMPTY_ARRAY + b"(K\x01K\x03\x85" + dtype() + b"K\x00" + raw(b"abc") + b"tb",
    "of too few parts": EMPTY_ARRAY + b"(K\x01K\x03\x85" + dtype() + b"\x89tb",
    "of bool 2": array(kind=dtype("b1")),
    "of order Q": frombuffer(raw(b"abc"), dtype(), b"K\x03\x85", text("Q")),
    "frombuffer of too few": frombuffer(raw(b"abc"), dtype(), b"K\x03\x85"),
    "frombuffer out of band": frombuffer(b"\x97", dtype(), b"K\x03\x85", text("C")),
    "frombuffer of objects": frombuffer(raw(b"\x41" * 24), dtype("O8"), b"K\x03\x85", text("C")),
}

ARRAYS = {
    **{f"dtype {kind}": attack for kind, attack in DTYPES.items()},
    **{f"shape {kind}": attack for kind, attack in SHAPES.items()},
    **{f"array {kind}": attack for kind, attack in STATES.items()},
}
