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
from numpy.typing import NDArray

import pipeline.store
from pipeline.errors import BadData
from pipeline.rehearsal.digits import python2_pickle
from pipeline.store import pickles
from pipeline.store.pickles import loads, read
from tests.hostile.opcodes import array, beside_images, dtype, frame, frombuffer, raw, text
from tests.hostile.pickles import ARRAYS, BOMBS, CALLS, IMPOSTORS, REFUSED, TAILS, alone

PROTOCOLS = [2, 3, 4, 5]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


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


def python_2_batch(images: NDArray[np.uint8], labels: list[int], names: list[str]) -> bytes:
    """A data_batch as Python 2's cPickle wrote it."""
    return python2_pickle({"labels": labels, "data": images, "filenames": names})


def refusal(data: bytes) -> str:
    """The one line with which `data` is refused, fast."""
    return told(lambda: loads(data, "some.pkl"))


def told(load: Callable[[], object]) -> str:
    """The one line with which some.pkl is refused, fast."""
    began = time.process_time()
    with pytest.raises(BadData) as caught:
        load()
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
    names = [f"frog_{n:04}.png" for n in range(300)]
    labels = [n % 10 for n in range(300)]
    images = np.random.default_rng(1).integers(0, 256, (300, 3072), dtype=np.uint8)
    value = loads(python_2_batch(images, labels, names))
    assert isinstance(value, dict)
    assert value[b"labels"] == labels and value[b"filenames"] == [name.encode() for name in names]
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


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_other_files_are_named(kind: str) -> None:
    data, words = IMPOSTORS[kind]
    assert words in refusal(data)


# --- attacks ---


@pytest.mark.parametrize("attack", CALLS | ARRAYS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused(attack: str, protocol: int, canary: Callable[[], bool]) -> None:
    content = (CALLS | ARRAYS)[attack]
    whole = content + b"."
    refusal(b"\x80" + bytes([protocol]) + (frame(whole) if protocol == 4 else whole))
    # Also where the result is thrown away or hidden in a dict.
    refusal(b"\x80\x02}" + text("data") + content + b"s.")
    assert not canary()


def test_an_honest_value_beside_the_images_loads() -> None:
    # tests/hostile puts each attack in its place: nothing but the attack is then a reason to refuse.
    value = loads(beside_images(array()))
    assert isinstance(value, dict) and value["data"].shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    "attack",
    ["very much text", "encoded again and again", "swapped arrays again and again", "long bytes again and again"],
)
def test_bombs_take_no_memory(attack: str) -> None:
    data = alone(BOMBS[attack]())
    tracemalloc.start()
    try:
        with pytest.raises(BadData):
            loads(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(data) + 100 * 1024**2


@pytest.mark.parametrize("tail", TAILS)
def test_trailing_data_is_refused(tail: str) -> None:
    more = TAILS[tail]
    assert "before the file does" in refusal(b"\x80\x02" + array() + b"." + more)
    assert "before the file does" in refusal(b"\x80\x04" + frame(array() + b".") + more)
    assert "before the file does" in refusal(b"\x80\x04" + frame(array() + b"." + more))


def small_files() -> dict[str, bytes]:
    """A small file of each kind."""
    honest = {b"data": IMAGES[:1, :2, :2], b"ids": np.arange(2), "texts": ["é", 1.5, -1, 2**40, None]}
    files = {f"protocol {n}": pickle.dumps(honest, protocol=n) for n in PROTOCOLS}
    files["python 2"] = python_2_batch(IMAGES.reshape(5, -1)[:2, :20], [1, 2], ["a.png", "b.png"])
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


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_whether_it_is_read_or_mapped(
    name: str, monkeypatch: pytest.MonkeyPatch, canary: Callable[[], bool]
) -> None:
    content = REFUSED[name]()
    path = Path("some.pkl")
    path.write_bytes(content)
    when_read = told(lambda: read(path))
    monkeypatch.setattr(pickles, "IN_MEMORY", 0 if content else 1)
    assert told(lambda: read(path)) == when_read
    path.unlink()
    assert not canary()
