"""The pickle reader: honest files load, and every class of attack ends in one BadData of one line."""

import ast
import os
import pickle
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pipeline.store
from pipeline.errors import BadData
from pipeline.store.pickle_reader import loads, read

PROTOCOLS = [2, 3, 4, 5]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def name(*parts: str) -> bytes:
    """GLOBAL."""
    return b"c" + "\n".join(parts).encode() + b"\n"


def text(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def raw(value: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def frame(content: bytes, size: int | None = None) -> bytes:
    """FRAME."""
    return b"\x95" + struct.pack("<Q", len(content) if size is None else size) + content


MINUS_ONE = b"J\xff\xff\xff\xff"
PLAIN_STATE = b"NNN" + MINUS_ONE * 2 + b"K\x00"


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


def as_numpy_1(pickled: bytes) -> bytes:
    """The same pickle with numpy 1.x's module names; one frame."""
    old = pickled
    for module in ("multiarray", "numeric"):
        pickled = pickled.replace(text(f"numpy._core.{module}"), text(f"numpy.core.{module}"))
        pickled = pickled.replace(b"cnumpy._core." + module.encode(), b"cnumpy.core." + module.encode())
    if pickled[2:3] == b"\x95":
        (size,) = struct.unpack_from("<Q", pickled, 3)
        pickled = pickled[:3] + struct.pack("<Q", size - len(old) + len(pickled)) + pickled[11:]
    assert b"_core" not in pickled
    return pickled


def python_2_batch(images: NDArray[np.uint8], labels: list[int], names: list[bytes]) -> bytes:
    """A data_batch as Python 2's cPickle writes it: every string is a py2 `str`, the memo counts from 1."""
    count = 0

    def kept(item: bytes) -> bytes:
        nonlocal count
        count += 1
        return item + (b"q" + bytes([count]) if count < 256 else b"r" + struct.pack("<I", count))

    def string(value: bytes) -> bytes:
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<I", len(value))) + value

    out = [b"\x80\x02", kept(b"}"), b"(", kept(string(b"labels")), kept(b"]"), b"("]
    out += [b"K" + bytes([label]) for label in labels] + [b"e", kept(string(b"data"))]
    out += [kept(name("numpy.core.multiarray", "_reconstruct")), kept(name("numpy", "ndarray"))]
    out += [b"K\x00\x85", string(b"b"), b"\x87", kept(b"R"), b"(K\x01"]
    out += [b"M" + struct.pack("<H", size) for size in images.shape] + [b"\x86", kept(name("numpy", "dtype"))]
    out += [string(b"u1"), b"K\x00K\x01\x87", kept(b"R"), b"(K\x03", string(b"|"), PLAIN_STATE, b"tb\x89"]
    out += [string(images.tobytes()), b"tb", kept(string(b"filenames")), kept(b"]"), b"("]
    out += [kept(string(file_name)) for file_name in names] + [b"eu."]
    return b"".join(out)


def refusal(data: bytes) -> str:
    """The one line with which `data` is refused, fast."""
    began = time.process_time()
    with pytest.raises(BadData) as caught:
        loads(data, "some.pkl")
    # What is capped takes 1 s at most on an idle machine of 2026; what is not would take minutes.
    assert time.process_time() - began < 3
    message = str(caught.value)
    assert type(caught.value) is BadData
    assert message.startswith("some.pkl: ") and message.endswith(
        "; the file was not loaded: download it again with --force"
    )
    assert message.isprintable() and len(message) < 500
    return message


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Attacks run `touch canary` or import `canary_module`; the result tells whether one succeeded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("canary_module.py").write_text("open('canary', 'w').close()\nx = 1\n")
    return lambda: sorted(path.name for path in tmp_path.iterdir()) != ["canary_module.py"]


# --- honest files ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("key", ["data", b"data"])
@pytest.mark.parametrize("images", [IMAGES, IMAGES.reshape(5, -1)], ids=["hwc", "flat"])
def test_hidden_files_load(protocol: int, numpy_1: bool, key: str | bytes, images: NDArray[np.uint8]) -> None:
    ids = b"ids" if isinstance(key, bytes) else "ids"
    data = pickle.dumps({key: images, ids: np.arange(5)}, protocol=protocol)
    value = loads(as_numpy_1(data) if numpy_1 else data)
    assert isinstance(value, dict) and list(value) == [key, ids]
    np.testing.assert_array_equal(value[key], images, strict=True)
    np.testing.assert_array_equal(value[ids], np.arange(5), strict=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_plain_dtype_loads_natively(protocol: int, code: str, order: str) -> None:
    honest = np.arange(12).reshape(3, 4).astype(f"{order}{code}")
    for variant in (honest, np.asfortranarray(honest), honest[:, ::2], honest[0, 1]):
        as_array = np.array(variant, order="K")  # a numpy scalar would be pickled as `scalar`, which is refused
        value = loads(pickle.dumps(as_array, protocol=protocol))
        assert isinstance(value, np.ndarray)
        assert value.dtype == honest.dtype.newbyteorder("=") and value.dtype.isnative
        assert value.flags.aligned and not value.flags.writeable
        np.testing.assert_array_equal(value, variant)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_load(protocol: int) -> None:
    honest = {
        "numbers": [0, 255, 256, 65536, -1, 2**31, -(2**63), 2**63 - 1, 1.5, -0.0, float("inf")],
        "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {1: 2}),
        "texts": ["", "é", "\U0001f600", b"x", bytes(range(256)), b"long" * 2000],
    }
    assert loads(pickle.dumps(honest, protocol=protocol)) == honest


def test_python_2_batch_loads() -> None:
    names = [b"frog_%04d.png" % n for n in range(300)]
    labels = [n % 10 for n in range(300)]
    images = np.random.default_rng(1).integers(0, 256, (300, 3072), dtype=np.uint8)
    value = loads(python_2_batch(images, labels, names))
    assert isinstance(value, dict)
    assert value[b"labels"] == labels and value[b"filenames"] == names
    np.testing.assert_array_equal(value[b"data"], images, strict=True)


def test_hand_made_building_blocks_load() -> None:
    # The attacks below are these with one thing changed.
    for honest in (
        b"\x80\x02" + array() + b".",
        b"\x80\x04" + frame(array()) + frame(b"."),
        b"\x80\x05" + frombuffer(raw(b"abc"), dtype(), b"K\x03\x85", text("C")) + b".",
    ):
        np.testing.assert_array_equal(loads(honest), np.frombuffer(b"abc", np.uint8), strict=True)


def test_empty_arrays_load() -> None:
    for shape in ((0,), (0, 3072), (3, 0, 2)):
        value = loads(pickle.dumps(np.zeros(shape, np.float32), protocol=4))
        assert isinstance(value, np.ndarray) and value.shape == shape


def test_shared_values_load() -> None:
    images = IMAGES.copy()
    labels = [1, 2]
    value = loads(pickle.dumps([images, images, labels, labels, images.dtype.type(1).tobytes()], protocol=4))
    assert isinstance(value, list) and value[2] == value[3] == labels
    np.testing.assert_array_equal(value[0], value[1])


def test_large_arrays_are_views_of_the_file() -> None:
    for protocol in (3, 4, 5):
        data = pickle.dumps({b"data": IMAGES}, protocol=protocol)
        value = loads(data)
        assert isinstance(value, dict)
        assert np.shares_memory(value[b"data"], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_stays_under_three_times_the_file(protocol: int) -> None:
    images = np.random.default_rng(0).integers(0, 128, (2000, 3072), dtype=np.uint8)  # ASCII: the worst case
    data = pickle.dumps({b"data": images}, protocol=protocol)
    tracemalloc.start()
    try:
        loads(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) + peak < 3 * len(data)


# --- files ---


def test_read_loads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "hidden.pkl"
    path.write_bytes(pickle.dumps({b"ids": [1]}))
    assert read(path) == {b"ids": [1]}


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "too large", "zero byte"])
def test_unreadable_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "some\x1b\n.pkl"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "too large":
        with path.open("wb") as stream:
            stream.truncate(2 * 1024**3 + 1)  # a hole: takes no space
    elif kind == "zero byte":
        path = Path("some\x00.pkl")
    with pytest.raises(BadData, match="the file was not loaded") as caught:
        read(path)
    assert str(caught.value).isprintable()


IMPOSTORS = {
    "empty": (b"", "is empty"),
    "html": (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "web page"),
    "zip": (b"PK\x03\x04....", "zip"),
    "gzip": (b"\x1f\x8b\x08....", "gzip"),
    "npy": (b"\x93NUMPY\x01\x00", "npy"),
    "json": (b'{"code": 404}', "JSON"),
    "text": (b"404 not found\n", "does not begin like a pickle"),
    "protocol 0": (pickle.dumps({"a": 1}, protocol=0), "does not begin like a pickle"),
    "protocol 1": (pickle.dumps({"a": 1}, protocol=1), "does not begin like a pickle"),
    "declared protocol 0": (b"\x80\x00N.", "protocol 0"),
    "declared protocol 1": (b"\x80\x01N.", "protocol 1"),
    "protocol 6": (b"\x80\x06N.", "protocol 6"),
    "protocol 255": (b"\x80\xffN.", "protocol 255"),
}


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_other_files_are_named(kind: str) -> None:
    data, words = IMPOSTORS[kind]
    assert words in refusal(data)


# --- attacks ---

TOUCH = text("touch canary") + b"\x85R"
SYSTEM = name("os", "system") + TOUCH
TWICE = b"q\x00h\x00"  # memoise, get
NESTED = pickle.dumps(os.getcwd, protocol=2)
BIG = 2**63
MERSENNE = 2**61 - 1  # CPython's hashes of integers are modulo this


def laughs(levels: int, opcode: bytes) -> bytes:
    """Lists of ten references to the list before."""
    out = b"(]\x94" + text("lol") + b"a"
    for level in range(levels):
        reference = b"h" + bytes([level])
        out += (b"]\x94(" + reference * 10 + b"e") if opcode == b"e" else (b"(" + reference * 10 + b"t\x94")
    return out + b"t"


def integer(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


CODE = {
    "os.system": SYSTEM,
    "posix.system": name("posix", "system") + TOUCH,
    "nt.system": name("nt", "system") + TOUCH,
    "subprocess": name("subprocess", "check_output") + text("touch canary") + b"K\x00NNN(t\x88tR",
    "builtins.exec": name("builtins", "exec") + text("import canary_module") + b"\x85R",
    "builtins.eval": name("builtins", "eval") + text("__import__('canary_module')") + b"\x85R",
    "py2 __builtin__": name("__builtin__", "eval") + text("__import__('canary_module')") + b"\x85R",
    "py2 commands": name("commands", "getoutput") + TOUCH,
    "import alone": name("canary_module", "x"),
    "getattr": name("builtins", "getattr") + name("os", "path") + text("os") + b"\x86R",
    "operator": name("operator", "attrgetter") + text("system") + b"\x85R",
    "functools": name("functools", "partial") + name("os", "system") + text("touch canary") + b"\x86R)R",
    "nested loads": name("pickle", "loads") + raw(b"\x80\x02" + SYSTEM + b".") + b"\x85R",
    "_pickle.loads": name("_pickle", "loads") + raw(NESTED) + b"\x85R",
    "INST": b"(" + text("touch canary") + b"ios\nsystem\n",
    "OBJ": b"(" + name("os", "system") + text("touch canary") + b"o",
    "NEWOBJ": name("subprocess", "Popen") + text("touch canary") + b"\x85\x81",
    "NEWOBJ of ndarray": name("numpy", "ndarray") + b"K\x03\x85\x85\x81",
    "NEWOBJ_EX": name("subprocess", "Popen") + text("touch canary") + b"\x85}\x92",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pcanary\n",
    "BINPERSID": text("canary") + b"Q",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": raw(b"abc") + b"\x98",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93" + TOUCH,
    "STACK_GLOBAL by memo": text("os") + b"\x940" + text("system") + b"\x940h\x00h\x01\x93" + TOUCH,
    "STACK_GLOBAL by memo without POP": b"(" + text("os") + b"\x94" + text("system") + b"\x94th\x00h\x01\x93",
    "STACK_GLOBAL dotted": text("numpy") + text("dtype.__class__.mro") + b"\x93)R",
    "STACK_GLOBAL of bytes": b"U\x02osU\x06system\x93" + TOUCH,
    "STACK_GLOBAL of numbers": b"K\x01K\x02\x93",
    "STACK_GLOBAL of lists": b"]]\x93",
    "GLOBAL dotted": name("numpy", "ndarray.__reduce__"),
    "GLOBAL without end": b"cnumpy\ndtype",
    "GLOBAL endless": b"c" + b"a" * 1_000_000,
    "GLOBAL not ASCII": b"c\xff\xfe\x1b[31m\nb\r\n",
    "numpy.testing": name("numpy.testing._private.utils", "runstring") + text("x") + b"}\x86R",
    "numpy.f2py": name("numpy.f2py.crackfortran", "myeval") + text("1") + b"\x85R",
    "numpy.load": name("numpy", "load") + text("canary.npy") + b"NN\x87R",
    "numpy.memmap": name("numpy", "memmap") + text("canary") + text("u1") + text("w+") + b"\x87R",
    "numpy.fromfile": name("numpy", "fromfile") + text("canary_module.py") + b"\x85R",
    "numpy scalar": name("numpy.core.multiarray", "scalar") + dtype("i8", "<") + raw(b"\0" * 8) + b"\x86R",
    "scalar of object": name("numpy.core.multiarray", "scalar") + dtype("O8") + raw(b"\0" * 8) + b"\x86R",
    "ndarray called": name("numpy", "ndarray") + b"K\x03\x85\x85R",
    "numpy.random": name("numpy.random._pickle", "__generator_ctor") + b")R",
    "call of a text": text("os") + b")R",
    "call of a list": b"])R",
    "call without a tuple": name("numpy", "dtype") + b"]R",
    "encode with another codec": name("_codecs", "encode") + text("abc") + text("rot13") + b"\x86R",
    "encode with utf-8": name("_codecs", "encode") + text("abc") + text("utf-8") + b"\x86R",
    "encode without a codec": name("_codecs", "encode") + text("abc") + b"\x85R",
    "encode of no latin1": name("_codecs", "encode") + text("\u0100") + text("latin1") + b"\x86R",
    "encode of a number": name("_codecs", "encode") + b"K\x01" + text("latin1") + b"\x86R",
    "_codecs.lookup": name("_codecs", "lookup") + text("canary_module") + b"\x85R",
    "_reconstruct of another class": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "memmap") + b"K\x00\x85C\x01b\x87R"
    ),
    "_reconstruct with a shape": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"J\xff\xff\xff\x7f\x85C\x01b\x87R"
    ),
    "_reconstruct of objects": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85C\x01O\x87R"
    ),
    "a global as the value": name("numpy", "ndarray"),
    "a dtype as the value": dtype(),
    "BUILD on a dict": b"}}b",
    "BUILD on a list": b"]}b",
    "BUILD on a function": name("_codecs", "encode") + b"}" + text("__doc__") + text("x") + b"sb",
    "BUILD on a class": name("numpy", "ndarray") + b"}" + text("x") + b"K\x01sb",
    "BUILD with a dict": EMPTY_ARRAY + b"}b",
    "BUILD with two dicts": EMPTY_ARRAY + b"}}\x86b",
    "BUILD twice": array() + b"(K\x01K\x03\x85" + dtype() + b"\x89" + raw(b"xyz") + b"tb",
    "BUILD of a dtype twice": dtype() + b"(K\x03" + text("|") + PLAIN_STATE + b"tb",
    "array never built": EMPTY_ARRAY,
    "array that escapes before its BUILD": EMPTY_ARRAY + b"q\x00]h\x00a\x86",
    "array that holds itself": EMPTY_ARRAY + b"q\x00(K\x01K\x03\x85" + dtype() + b"\x89h\x00tb",
    "array with an unbuilt dtype": array(kind=name("numpy", "dtype") + text("u1") + b"\x89\x88\x87R"),
    "array with a global as dtype": array(kind=name("numpy", "dtype")),
    "array of text": array(data=text("abc")),
    "array of a list": array(data=b"]"),
    "array of version 2": EMPTY_ARRAY + b"(K\x02K\x03\x85" + dtype() + b"\x89" + raw(b"abc") + b"tb",
    "array of bool 2": array(kind=dtype("b1")),
    "array of order Q": frombuffer(raw(b"abc"), dtype(), b"K\x03\x85", text("Q")),
    "frombuffer of too few": frombuffer(raw(b"abc"), dtype(), b"K\x03\x85"),
    "frombuffer mismatched": frombuffer(raw(b"abc"), dtype(), b"K\x04\x85", text("C")),
    "dtype object": array(kind=dtype("O8"), data=raw(b"\x41" * 24)),
    "dtype O": array(kind=dtype("O"), data=raw(b"\x41" * 24)),
    "dtype void": array(kind=dtype("V3")),
    "dtype string": array(kind=dtype("S3")),
    "dtype unicode": array(kind=dtype("U1"), data=raw(b"\xff" * 12)),
    "dtype datetime": array(kind=dtype("M8", "<"), data=raw(b"\0" * 24)),
    "dtype complex": array(kind=dtype("c8", "<"), data=raw(b"\0" * 24)),
    "dtype long double": array(kind=dtype("f16", "<"), data=raw(b"\0" * 48)),
    "dtype by commas": array(kind=dtype("u1,O")),
    "dtype by number": name("numpy", "dtype") + b"K\x01\x89\x88\x87R",
    "dtype by a list": name("numpy", "dtype") + b"]\x89\x88\x87R",
    "dtype with align": name("numpy", "dtype") + text("u1") + b"\x88\x88\x87R",
    "dtype state: order": array(kind=dtype(order="<")),
    "dtype state: order of i8": array(kind=dtype("i8", "|"), data=raw(b"\0" * 24)),
    "dtype state: fields": array(kind=dtype(state=b"N" + text("f") + b"\x85}" + MINUS_ONE * 2 + b"K\x00")),
    "dtype state: subarray": array(kind=dtype(state=text("O") + b"NN" + MINUS_ONE * 2 + b"K\x00")),
    "dtype state: size": array(kind=dtype(state=b"NNNK\x08K\x08K\x00")),
    "dtype state: flags": array(kind=dtype(state=b"NNN" + MINUS_ONE * 2 + b"K\x3f")),
    "dtype state: metadata": array(kind=dtype(state=PLAIN_STATE + b"}")),
    "shape negative": array(MINUS_ONE + b"\x85"),
    "shape twice negative": array(MINUS_ONE + integer(-3) + b"\x86"),
    "shape overflowing": array(integer(2**62) + b"K\x04\x86", data=raw(b"")),
    "shape overflowing with zero": array(integer(BIG - 1) + integer(BIG - 1) + b"K\x00\x87", data=raw(b"")),
    "shape mismatched": array(b"K\x04\x85"),
    "shape huge": array(integer(10**12) + b"\x85"),
    "shape of bool": array(b"\x88K\x03\x86"),
    "shape of floats": array(b"G" + struct.pack(">d", 3.0) + b"\x85"),
    "shape of a list": array(b"](K\x03e"),
    "shape of a number": array(b"K\x03"),
    "shape of 40 dimensions": array(b"(" + b"K\x01" * 39 + b"K\x03t"),
}

BOMBS = {
    "memo index": b"Nr\xff\xff\xff\x7f",
    "memo index unread": b"Nj\xff\xff\xff\x7f",
    "memo of nothing": b"q\x00N",
    "memo of a mark": b"(q\x00N",
    "BINBYTES": b"B\xff\xff\xff\xffabc",
    "BINBYTES8": b"\x8e" + b"\xff" * 8 + b"abc",
    "BINBYTES8 of a terabyte": b"\x8e" + struct.pack("<Q", 2**40) + b"abc",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40) + b"abc",
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62) + b"abc",
    "BINSTRING negative": b"T\xff\xff\xff\xffabc",
    "text that is no UTF-8": b"\x8c\x02\xff\xfe",
    "text with a surrogate": b"\x8c\x03\xed\xa0\x80",
    "long text": b"X" + struct.pack("<I", 5000) + b"a" * 5000,
    "very much text": (b"X" + struct.pack("<I", 4096) + b"a" * 4096 + b"\x85") * 4100,
    "LONG1 of 9 bytes": b"\x8a\x09" + b"\xff" * 9,
    "LONG4": b"\x8b" + struct.pack("<I", 1000) + b"\x01" * 1000,
    "LONG4 of gigabytes": b"\x8b\xff\xff\xff\x7f",
    "decimal digits (INT)": b"I" + b"9" * 1_000_000 + b"\n",
    "decimal digits (LONG)": b"L" + b"9" * 1_000_000 + b"L\n",
    "FLOAT": b"F1.5\n",
    "STRING": b"S'abc'\n",
    "UNICODE": b"Vabc\n",
    "nested marks": b"(" * 100_000,
    "nested tuples": b")" + b"\x85" * 290_000,
    "nested tuples as a key": b"})" + b"\x85" * 290_000 + b"Ns",
    "nested lists": b"]" * 100_000 + b"a" * 99_999,
    "nested dicts": b"}" + b"C\x01a}" * 90_000 + b"s" * 90_000,
    "opcodes": b"N" * 1_000_000,
    "opcodes that leave nothing": b"](" + b"N" * 600_000 + b"e",
    "billion laughs": laughs(40, b"e"),
    "billion laughs of tuples": laughs(40, b"t"),
    "DUP": b"]" + b"2a" * 3,
    "DUP expansion": b"(K\x01" + b"2\x86" * 100 + b"t",
    "long bytes again and again": b"(" + raw(b"a" * 5000) + b"\x94" + b"h\x00" * 100_000 + b"t",
    "swapped arrays again and again": (
        raw(b"\0" * 80_000) + b"\x94(" + dtype("u2", ">") + b"\x94"
        + (EMPTY_ARRAY + b"(K\x01M\x40\x9c\x85h\x01\x89h\x00tb") * 3000 + b"t\x86"
    ),
    "encoded again and again": (
        b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"\x94("
        + (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 5000 + b"t\x86"
    ),
    "colliding integers": b"}(" + b"".join(integer(n * MERSENNE) + b"N" for n in range(-4, 5)) * 9_000 + b"u",
    "many integers as keys": b"}(" + b"".join(integer(n << 40) + b"N" for n in range(20_000)) + b"u",
    "colliding integers again and again": (
        b"](}(" + b"".join(integer(n << 55) + b"N" for n in range(100)) + b"u\x94" + b"h\x00" * 100_000 + b"e"
    ),
    "cycle of a list": b"]q\x00h\x00a",
    "cycle of a dict": b"}q\x00K\x01h\x00s",
    "cycle through a tuple": b"]q\x00(h\x00h\x00ta",
    "set": b"\x8f",
    "frozenset": b"(\x91",
    "list as a key": b"}]Ns",
    "tuple as a key": b"})Ns",
    "float as a key": b"}G" + b"\x7f\xf8" + b"\0" * 6 + b"Ns",
    "None as a key": b"}NNs",
    "bool as a key": b"}\x88Ns",
    "long bytes as a key": b"}" + raw(b"a" * 5000) + b"Ns",
    "array as a key": b"}" + array() + b"Ns",
    "duplicate key": b"}(" + text("data") + b"K\x01" + text("data") + b"K\x02u",
    "duplicate key by SETITEM": b"}" + (text("data\x1b[31m\n") + b"Ns") * 2,
    "items without a value": b"}(" + text("data") + b"u",
    "items into a list": b"](" + text("data") + b"Nu",
    "append to a dict": b"}Na",
    "append to a tuple": b")Na",
    "append to an array": array() + b"Na",
    "APPENDS without a mark": b"]Ne",
    "TUPLE without a mark": b"t",
    "TUPLE2 across a mark": b"N(N\x86",
    "STOP within a mark": b"(N",
    "two values": b"NN",
    "no value": b"",
    "POP": b"NN0",
    "POP_MARK": b"N(N1",
    "PROTO again": b"\x80\x02N",
    "unknown opcode": b"\xff",
    "FRAME of too much": frame(b"N", 2**62),
    "FRAME of 2**64 - 1": frame(b"N", 2**64 - 1),
    "FRAME of nothing": frame(b"") + b"N",
    "FRAME in a FRAME": frame(frame(b"N") + b"0N"),
    "FRAME in the last FRAME": frame(frame(b"N.")),
    "FRAME across an opcode": frame(b"C", 1) + b"\x01aN",
    "FRAME across an argument": frame(b"B\x05\0\0\0ab", 7) + b"cdeN",
    "FRAME across a GLOBAL": frame(b"cnumpy\n", 7) + b"dtype\n",
    "FRAME across a FRAME": frame(b"N\x95", 2) + b"\x01" + b"\0" * 7 + b"N",
}  # fmt: skip


@pytest.mark.parametrize("attack", CODE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused(attack: str, protocol: int, canary: Callable[[], bool]) -> None:
    content = CODE[attack] + b"."
    refusal(b"\x80" + bytes([protocol]) + (frame(content) if protocol == 4 else content))
    # Also where the result is thrown away or hidden in a dict.
    refusal(b"\x80\x02}" + text("data") + CODE[attack] + b"s.")
    assert not canary()


@pytest.mark.parametrize("attack", BOMBS)
def test_bombs_are_refused(attack: str, canary: Callable[[], bool]) -> None:
    refusal(b"\x80\x04" + BOMBS[attack] + b".")
    assert not canary()


@pytest.mark.parametrize("attack", [attack for attack in BOMBS if "again" in attack or "much" in attack])
def test_bombs_take_no_memory(attack: str) -> None:
    data = b"\x80\x04" + BOMBS[attack] + b"."
    tracemalloc.start()
    try:
        with pytest.raises(BadData):
            loads(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data) + 100 * 1024**2


@pytest.mark.parametrize("tail", [b"N", b".", b"\0", b"\x80\x02" + SYSTEM + b"."])
def test_trailing_data_is_refused(tail: bytes) -> None:
    assert "before the file does" in refusal(b"\x80\x02" + array() + b"." + tail)
    assert "before the file does" in refusal(b"\x80\x04" + frame(array() + b".") + tail)
    assert "before the file does" in refusal(b"\x80\x04" + frame(array() + b"." + tail))


def small_files() -> dict[str, bytes]:
    """A small file of each kind."""
    honest = {b"data": IMAGES[:1, :2, :2], b"ids": np.arange(2), "texts": ["é", 1.5, -1, 2**40, None]}
    files = {f"protocol {n}": pickle.dumps(honest, protocol=n) for n in PROTOCOLS}
    files["python 2"] = python_2_batch(IMAGES.reshape(5, -1)[:2, :20], [1, 2], [b"a.png", b"b.png"])
    return files


@pytest.mark.parametrize("kind", small_files())
def test_truncation_at_every_byte_is_refused(kind: str) -> None:
    data = small_files()[kind]
    loads(data)
    for size in range(len(data)):
        refusal(data[:size])


@pytest.mark.parametrize("kind", small_files())
def test_bit_flips_load_or_are_refused(kind: str, canary: Callable[[], bool]) -> None:
    data = small_files()[kind]
    rng = random.Random(0)
    refused = 0
    for _ in range(2000):
        flipped = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            loads(bytes(flipped), "some.pkl")
        except BadData as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 600
    assert not canary()


FRAGMENTS = [
    *[bytes([opcode]) for opcode in b"(.NaesutbR)}]\x85\x86\x87\x88\x89\x93\x94"],
    *[b"h\x00", b"h\x01", b"q\x00", b"K\x00", b"K\x03", b"U\x02u1", MINUS_ONE, PLAIN_STATE],
    *[text(value) for value in ("u1", "|", "latin1", "numpy", "dtype")],
    *[
        name("numpy", "dtype"),
        name("numpy", "ndarray"),
        name("_codecs", "encode"),
        EMPTY_ARRAY,
        dtype(),
        array(),
    ],
    *[raw(b"abc"), raw(b"a" * 5000), b"X" + struct.pack("<I", 5000) + b"a" * 5000],
]


@settings(max_examples=300, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join)))
def test_any_bytes_load_or_are_refused(content: bytes) -> None:
    for data in (content, b"\x80\x04" + content, b"\x80\x04" + content + b".", b"\x80\x04" + frame(content)):
        try:
            loads(data, "some.pkl")
        except BadData as error:
            assert str(error).isprintable()


def test_the_reader_never_imports_pickle() -> None:
    (folder,) = pipeline.store.__path__
    for path in Path(folder).glob("pickle_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {
                    "pickle",
                    "_pickle",
                    "cloudpickle",
                    "joblib",
                }
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in ("pickle", "_pickle", "importlib")
