"""Harmless pickles of something else than the stages expect."""

import pickle
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.rehearsal import digits
from tests.hostile.opcodes import raw, text

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ESCAPE = "\x1b[31m\x1b]0;owned\x07\r\n\u202e"  # colours, the window's title, a new line, right to left


def images(count: int) -> NDArray[np.uint8]:
    """Smooth images uint8 (count, 32, 32, 3), each of its own brightness; without torch, unlike tests.support."""
    ramp = 4 * np.arange(32)
    grey = ramp[:, None] // 2 + ramp[None, :] + 8 * np.arange(count)[:, None, None] % 64
    return np.stack([grey, grey // 2, 200 - grey // 2], axis=-1).astype(np.uint8)


_PIXELS = images(3)
_FLAT = _PIXELS.transpose(0, 3, 1, 2).reshape(3, -1)


def _hidden(**changes: object) -> bytes:
    """A hidden set of three images with something changed; None leaves a key out."""
    content = {"data": _PIXELS, "ids": np.arange(3)} | changes
    return pickle.dumps({key: value for key, value in content.items() if value is not None}, protocol=4)


def _batch(**changes: object) -> bytes:
    """A batch of three images with something changed; None leaves a key out."""
    content = {"data": _FLAT, "labels": [0, 1, 2]} | changes
    return pickle.dumps({key.encode(): value for key, value in content.items() if value is not None}, protocol=2)


HIDDEN: Mapping[str, bytes] = {
    "not a dictionary, a list": pickle.dumps([_PIXELS], protocol=4),
    "not a dictionary, None": b"\x80\x04N.",
    "not a dictionary, text": b"\x80\x04" + text(ESCAPE) + b".",
    "wrong keys": pickle.dumps({"images": _PIXELS}, protocol=4),
    "escapes in keys": pickle.dumps({ESCAPE: _PIXELS, ESCAPE.encode(): 1, 7: 2}, protocol=4),
    "many keys": pickle.dumps({f"{ESCAPE}{n}": n for n in range(5000)}, protocol=4),
    "data twice, as text and as bytes": pickle.dumps({"data": _PIXELS, b"data": 255 - _PIXELS}, protocol=4),
    "data is a list": _hidden(data=_PIXELS[:1, :2].tolist()),
    "data is text": _hidden(data=ESCAPE),
    "data is of int64": _hidden(data=_PIXELS.astype(np.int64)),
    "data is of float32": _hidden(data=_PIXELS / np.float32(255)),
    "data of one image without an axis": _hidden(data=_PIXELS[0]),
    "data of grey images": _hidden(data=_PIXELS[..., 0]),
    "data of 28 x 28": _hidden(data=_PIXELS[:, :28, :28]),
    "no images": _hidden(data=_PIXELS[:0], ids=np.arange(0)),
    "ids not unique": _hidden(ids=np.array([1, 2, 1])),
    "ids 2-D": _hidden(ids=np.arange(3)[:, None]),
    "ids of float": _hidden(ids=np.arange(3.0)),
    "ids of bool": _hidden(ids=np.array([True, False, True])),
    "ids of text": _hidden(ids=["1", "2", ESCAPE]),
    "ids of bool in a list": _hidden(ids=[True, False, 2]),
    "ids too few": _hidden(ids=np.arange(2)),
    "ids very many": _hidden(ids=np.zeros(1_000_000, np.int8)),
    "ids too large": _hidden(ids=np.array([1, 2, 10**18])),
    "ids of 2**64 - 1": _hidden(ids=np.array([1, 2, 2**64 - 1], np.uint64)),
    "ids of the least integer in a list": _hidden(ids=[1, 2, -(2**63)]),
}

BATCH: Mapping[str, bytes] = {
    "not a dictionary": b"\x80\x02].",
    "no data": _batch(data=None),
    "no labels": _batch(labels=None),
    "escapes in keys": pickle.dumps({ESCAPE: 1}, protocol=2),
    "no images": _batch(data=_FLAT[:0], labels=[]),
    "data of float": _batch(data=_FLAT / 255),
    "data scrambled": _batch(data=_PIXELS.reshape(3, -1)),
    "labels too few": _batch(labels=[0, 1]),
    "labels negative": _batch(labels=[0, 1, -1]),
    "labels of a class too many": _batch(labels=[0, 1, 10]),
    "labels of 2**64 - 1": _batch(labels=np.array([0, 1, 2**64 - 1], np.uint64)),
    "labels of float": _batch(labels=[0.0, 1.0, 2.0]),
    "labels of text": _batch(labels=["0", "1", ESCAPE]),
    "labels of bool": _batch(labels=[True, False, True]),
    "labels 2-D": _batch(labels=np.zeros((3, 10), np.int64)),
    "labels in a tuple": _batch(labels=(0, 1, 2)),
}

META: Mapping[str, bytes] = {
    "not a dictionary": b"\x80\x02K\x07.",
    "no names": pickle.dumps({b"num_vis": 3072}, protocol=2),
    "nine names": digits.batches_meta(20, NAMES[:9]),
    "names are text": pickle.dumps({"label_names": "0123456789"}, protocol=2),
    "names are an array": pickle.dumps({"label_names": np.arange(10)}, protocol=2),
}


def _meta_of(first: bytes) -> bytes:
    """batches.meta whose first class has the name `first`, an opcode; the others have one letter."""
    names = b"".join(b"U\x01" + bytes([letter]) for letter in b"bcdefghij")
    return b"\x80\x02}U\x0blabel_names](" + first + names + b"es."


# These load; what they hold must not reach the terminal as it is, nor take memory.
META_TAKEN: Mapping[str, Callable[[], bytes]] = {
    "escapes in names": lambda: digits.batches_meta(20, [f"{ESCAPE}{name}" for name in NAMES]),
    "a name of 50 MB": lambda: _meta_of(raw("\U0001f600".encode() + b"a" * 50_000_000)),
    "a name that is no UTF-8": lambda: _meta_of(raw(b"\xff\xfe\x00")),
}
