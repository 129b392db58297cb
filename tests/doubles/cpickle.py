"""CIFAR-10's batches byte by byte as Python 2's cPickle wrote them, which is what the real download holds."""

import itertools
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Uint8 = npt.NDArray[np.uint8]
Python2Value = str | int | Sequence[str] | Sequence[int] | Uint8

APPENDS_AT_ONCE = 1000  # cPickle's batch size for lists


def batch(label: str, images: Uint8, labels: Iterable[int], filenames: Iterable[str]) -> bytes:
    """A data_batch or test_batch; `images` is uint8 (N, 32, 32, 3) RGB, stored flat and channel-first."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return python2_pickle(
        {"batch_label": label, "labels": [*map(int, labels)], "data": flat, "filenames": [*filenames]}
    )


def batches_meta(cases_per_batch: int, label_names: Iterable[str]) -> bytes:
    """batches.meta: the names of the classes."""
    return python2_pickle({"num_cases_per_batch": cases_per_batch, "label_names": [*label_names], "num_vis": 3072})


def hidden(images: Uint8, ids: npt.NDArray[np.int64]) -> bytes:
    """cifar_test_nolabel.pkl, which Python 3 wrote; `images` is uint8 (N, 32, 32, 3) RGB, stored as it is."""
    return pickle.dumps({b"data": images, b"ids": ids}, protocol=4)


def python2_pickle(values: Mapping[str, Python2Value]) -> bytes:
    """A protocol-2 pickle of a dictionary as Python 2's cPickle wrote it: its `str` are bytes, its memo is complete."""
    slots = itertools.count(1)  # cPickle counts from 1

    def memoized(opcodes: bytes) -> bytes:
        slot = next(slots)
        return opcodes + (b"q" + struct.pack("<B", slot) if slot < 256 else b"r" + struct.pack("<I", slot))

    def pickled(value: Python2Value) -> bytes:
        if isinstance(value, str):
            return memoized(_string(value.encode()))
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, np.ndarray):
            return _array(value, memoized)
        content = memoized(b"]")
        for start in range(0, len(value), APPENDS_AT_ONCE):
            content += b"(" + b"".join(map(pickled, value[start : start + APPENDS_AT_ONCE])) + b"e"
        return content

    head = b"\x80\x02" + memoized(b"}") + b"("
    return head + b"".join(pickled(key) + pickled(value) for key, value in values.items()) + b"u."


def _array(values: Uint8, memoized: Callable[[bytes], bytes]) -> bytes:
    """A two-dimensional array, with the module names of NumPy's early days."""
    rows, columns = values.shape
    return b"".join([
        # _reconstruct(ndarray, (0,), 'b') makes an empty array ...
        memoized(b"cnumpy.core.multiarray\n_reconstruct\n"),
        memoized(b"cnumpy\nndarray\n") + _integer(0) + b"\x85" + _string(b"b") + b"\x87",
        memoized(b"R"),
        # ... whose state is (1, (rows, columns), dtype('u1'), False, bytes)
        b"(" + _integer(1) + _integer(rows) + _integer(columns) + b"\x86",
        memoized(b"cnumpy\ndtype\n") + _string(b"u1") + _integer(0) + _integer(1) + b"\x87",
        memoized(b"R"),
        b"(" + _integer(3) + _string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + _integer(0) + b"tb",
        b"\x89" + _string(np.ascontiguousarray(values).tobytes()) + b"tb",
    ])  # fmt: skip


def _string(value: bytes) -> bytes:
    short = len(value) < 256
    return (b"U" + struct.pack("<B", len(value)) if short else b"T" + struct.pack("<I", len(value))) + value


def _integer(value: int) -> bytes:
    return b"K" + struct.pack("<B", value) if value < 256 else b"M" + struct.pack("<H", value)
