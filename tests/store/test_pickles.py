"""The pickle reader: honest files load, and every class of attack ends in one BadData of one line."""

import ast
import pickle
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.store import cifar, pickles
from pipeline.store.pickles import loads
from tests.doubles.cpickle import python2_pickle
from tests.hostile.pickles import (
    BOMBS,
    REFUSED,
    alone,
    array,
    beside_images,
    dtype,
    frame,
    frombuffer,
    raw,
    text,
)  # fmt: skip

PROTOCOLS = [2, 3, 4, 5]
HUNGRY = [
    "very much text of four bytes a letter", "encoded again and again", "swapped arrays again and again",
    "long bytes again and again",
]  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def refusal(load: Callable[[], object]) -> str:
    """The one line with which some.pkl is refused, fast."""
    began = time.process_time()
    with pytest.raises(BadData) as caught:
        load()
    # What is capped takes 1 s at most on an idle machine of 2026; what is not would take minutes.
    assert time.process_time() - began < 3
    message = str(caught.value)
    assert type(caught.value) is BadData and message.startswith("some.pkl")
    assert message.isprintable() and len(message) < 500
    return message


def peak_of(load: Callable[[], object]) -> int:
    """The memory in bytes that Python and numpy take at most meanwhile."""
    tracemalloc.start()
    try:
        load()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Attacks run `touch canary` or import `canary_module`; the result tells whether one succeeded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("canary_module.py").write_text("open('canary', 'w').close()\nx = 1\n")
    return lambda: sorted(path.name for path in tmp_path.iterdir()) != ["canary_module.py"]


# --- honest files (tests/hostile/test_honest_files.py: what real versions of numpy wrote) -------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_load(protocol: int) -> None:
    honest = {
        "numbers": [0, 255, 256, 65536, -1, 2**31, -(2**63), 2**63 - 1, 1.5, -0.0, float("inf")],
        "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {"1": 2}),
        "texts": ["", "é", "\U0001f600", b"x", bytes(range(256)), b"long" * 2000],
        "again": [[1, 2]] * 2,
        "names": [f"{'a' * 100}{n}" for n in range(50_000)],  # CIFAR-100's are shorter: its texts are within the caps
    }
    assert loads(pickle.dumps(honest, protocol=protocol)) == honest


def test_the_building_blocks_of_the_attacks_load() -> None:
    # Nothing but what an attack changes in them is a reason to refuse it.
    for honest in (
        b"\x80\x02" + array() + b".",
        b"\x80\x04" + frame(array()) + frame(b"."),
        b"\x80\x05" + frombuffer(raw(b"abc"), dtype(), b"K\x03\x85", text("C")) + b".",
    ):
        np.testing.assert_array_equal(loads(honest), np.frombuffer(b"abc", np.uint8), strict=True)
    value = loads(beside_images(array()))
    assert isinstance(value, dict) and value["data"].shape == (2, 32, 32, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_stays_under_three_times_the_file(protocol: int) -> None:
    images = np.random.default_rng(0).integers(0, 128, (2000, 3072), dtype=np.uint8)  # ASCII: the worst case
    data = pickle.dumps({b"data": images}, protocol=protocol)
    assert len(data) + peak_of(lambda: loads(data)) < 3 * len(data)
    if protocol > 2:
        value = loads(data)
        assert isinstance(value, dict) and np.shares_memory(value[b"data"], np.frombuffer(data, np.uint8))


# --- attacks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_whether_it_is_read_or_mapped(
    name: str, monkeypatch: pytest.MonkeyPatch, canary: Callable[[], bool]
) -> None:
    content, path = REFUSED[name](), Path("some.pkl")
    path.write_bytes(content)
    when_read = refusal(lambda: cifar.load(path))
    if 0 < len(content) < 100_000:
        monkeypatch.setattr(cifar, "IN_MEMORY", 0)
        assert refusal(lambda: cifar.load(path)) == when_read
    path.unlink()
    assert not canary()


def test_a_global_of_another_module_is_none_of_numpys() -> None:
    data = b"\x80\x02" + array().replace(b"cnumpy\ndtype\n", b"cevil\ndtype\n") + b"."
    assert "a global that no array needs, evil.dtype" in refusal(lambda: loads(data, "some.pkl"))


@pytest.mark.parametrize("attack", HUNGRY)
def test_bombs_take_no_memory(attack: str) -> None:
    data = alone(BOMBS[attack]())
    assert peak_of(lambda: refusal(lambda: loads(data, "some.pkl"))) < 2 * len(data) + 100 * 1024**2


def small_files() -> dict[str, bytes]:
    """A small file of each kind."""
    honest = {b"data": IMAGES[:1, :2, :2], b"ids": np.arange(2), "texts": ["é", 1.5, -1, 2**40, None]}
    files = {f"protocol {n}": pickle.dumps(honest, protocol=n) for n in PROTOCOLS}
    flat = IMAGES.reshape(5, -1)[:2, :20]
    return files | {"python 2": python2_pickle({"labels": [1, 2], "data": flat, "filenames": ["a.png", "b.png"]})}


@pytest.mark.parametrize("data", small_files().values(), ids=small_files())
def test_truncation_at_every_byte_is_refused(data: bytes) -> None:
    loads(data)
    for size in range(len(data)):
        with pytest.raises(BadData):
            loads(data[:size])


def test_the_reader_never_imports_pickle() -> None:
    for module in (pickles, cifar):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not set(names) & {"pickle", "_pickle", "cloudpickle", "joblib", "importlib", "torch"}
