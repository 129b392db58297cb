"""Writes the competition's file formats: CIFAR-10's Python 2 pickles and the hidden images' pickle.

Python 2's cPickle wrote `str` as raw bytes (opcodes U and T), which Python 3's pickle never writes; a reader
that only saw Python 3 pickles would not notice its own bytes-or-str bug.  So the opcodes are put together
here, as the original files have them: https://docs.python.org/3/library/pickletools.html lists them.
"""

import pickle
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Uint8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

APPENDS_AT_ONCE = 1000  # cPickle's batch size for lists


class Python2Pickle:
    """A protocol-2 pickle of one dictionary, written key by key as Python 2's cPickle did."""

    def __init__(self) -> None:
        self._memos = 0
        self._parts = [b"\x80\x02", self._remembered(b"}"), b"("]

    def _remembered(self, opcodes: bytes) -> bytes:
        """Opcodes, then the store of their result into the next memo slot (cPickle counts from 1)."""
        self._memos += 1
        slot = self._memos
        return opcodes + (b"q" + struct.pack("<B", slot) if slot < 256 else b"r" + struct.pack("<I", slot))

    def _list(self, items: Sequence[bytes]) -> Iterable[bytes]:
        for start in range(0, len(items), APPENDS_AT_ONCE):
            yield b"(" + b"".join(items[start : start + APPENDS_AT_ONCE]) + b"e"

    def text(self, key: str, value: str) -> None:
        """`key: value`, both Python 2 `str`."""
        self._parts += [self._remembered(_string(key.encode())), self._remembered(_string(value.encode()))]

    def number(self, key: str, value: int) -> None:
        """`key: value`."""
        self._parts += [self._remembered(_string(key.encode())), _integer(value)]

    def numbers(self, key: str, values: Iterable[int]) -> None:
        """`key: [numbers]`."""
        self._parts += [self._remembered(_string(key.encode())), self._remembered(b"]")]
        self._parts += self._list([_integer(int(value)) for value in values])

    def texts(self, key: str, values: Iterable[str]) -> None:
        """`key: [texts]`."""
        self._parts += [self._remembered(_string(key.encode())), self._remembered(b"]")]
        self._parts += self._list([self._remembered(_string(value.encode())) for value in values])

    def array(self, key: str, values: Uint8) -> None:
        """`key: array`, two-dimensional, with the module names of NumPy's early days."""
        rows, columns = values.shape
        self._parts += [
            self._remembered(_string(key.encode())),
            # _reconstruct(ndarray, (0,), 'b') makes an empty array ...
            self._remembered(b"cnumpy.core.multiarray\n_reconstruct\n"),
            self._remembered(b"cnumpy\nndarray\n") + _integer(0) + b"\x85" + _string(b"b") + b"\x87",
            self._remembered(b"R"),
            # ... whose state is (1, (rows, columns), dtype('u1'), False, bytes)
            b"(" + _integer(1) + _integer(rows) + _integer(columns) + b"\x86",
            self._remembered(b"cnumpy\ndtype\n") + _string(b"u1") + _integer(0) + _integer(1) + b"\x87",
            self._remembered(b"R"),
            b"(" + _integer(3) + _string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + _integer(0) + b"tb",
            b"\x89" + _string(np.ascontiguousarray(values).tobytes()) + b"tb",
        ]

    def finish(self) -> bytes:
        """The whole file."""
        return b"".join([*self._parts, b"u."])


def _string(value: bytes) -> bytes:
    short = len(value) < 256
    return (b"U" + struct.pack("<B", len(value)) if short else b"T" + struct.pack("<I", len(value))) + value


def _integer(value: int) -> bytes:
    return b"K" + struct.pack("<B", value) if value < 256 else b"M" + struct.pack("<H", value)


def batch(label: str, images: Uint8, labels: Iterable[int], filenames: Iterable[str]) -> bytes:
    """A data_batch or test_batch; `images` is uint8 (N, 32, 32, 3) RGB, stored flat and channel-first."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    out = Python2Pickle()
    out.text("batch_label", label)
    out.numbers("labels", labels)
    out.array("data", flat)
    out.texts("filenames", filenames)
    return out.finish()


def batches_meta(cases_per_batch: int, label_names: Iterable[str], pixels: int = 3072) -> bytes:
    """batches.meta: the names of the classes."""
    out = Python2Pickle()
    out.number("num_cases_per_batch", cases_per_batch)
    out.texts("label_names", label_names)
    out.number("num_vis", pixels)
    return out.finish()


def hidden(images: Uint8, ids: Int64) -> bytes:
    """cifar_test_nolabel.pkl; `images` is uint8 (N, 32, 32, 3) RGB, stored as it is."""
    return pickle.dumps({b"data": images, b"ids": ids}, protocol=4)
