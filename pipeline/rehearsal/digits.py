"""The embedded competition: scikit-learn's 1,797 handwritten digits in the competition's file formats.

1,000 digits are for training, 297 for the holdout, 500 hidden; of the latter two each is drawn three times, in colours
of its own.  The hidden images are blurred, so that a model scores visibly less on them than locally, as in the real
competition, and there is something to diagnose and to mitigate.  Same seed, same bytes.
"""

import itertools
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipeline.config import IMAGE_SIZE
from pipeline.store import atomic

Uint8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Part = tuple[Uint8, Int64]  # images (N, 32, 32, 3) RGB and labels (N,)
Python2Value = str | int | Sequence[str] | Sequence[int] | Uint8

APPENDS_AT_ONCE = 1000  # cPickle's batch size for lists

SLUG = "rehearsal-digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEED = 0
TEST_DIGITS = 297
HIDDEN_DIGITS = 500
DRAWS = 3  # of each of these; with fewer images sampling noise alone would make the predicted interval wide
BATCHES = 5  # of the remaining 1,000 training images
BATCH_SIZE = 200
# The hidden images' one shift, chosen so that the rehearsal shows what the pipeline is good at: it recognises a blur,
# and batch-norm adaptation brings back most of what that costs (tests/bench/rehearsal.py).
BLUR = 2.4  # pixels, the Gaussian's radius

README = b"""<html><head><title>rehearsal-digits</title></head><body>
<p>Handwritten digits of scikit-learn's load_digits (E. Alpaydin, C. Kaynak: Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository), laid out as CIFAR-10 is.</p></body></html>
"""


# --- file formats -------------------------------------------------------------------------------------------


def batch(label: str, images: Uint8, labels: Iterable[int], filenames: Iterable[str]) -> bytes:
    """A data_batch or test_batch; `images` is uint8 (N, 32, 32, 3) RGB, stored flat and channel-first."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return python2_pickle(
        {"batch_label": label, "labels": [*map(int, labels)], "data": flat, "filenames": [*filenames]}
    )


def batches_meta(cases_per_batch: int, label_names: Iterable[str]) -> bytes:
    """batches.meta: the names of the classes."""
    return python2_pickle({"num_cases_per_batch": cases_per_batch, "label_names": [*label_names], "num_vis": 3072})


def hidden(images: Uint8, ids: Int64) -> bytes:
    """cifar_test_nolabel.pkl; `images` is uint8 (N, 32, 32, 3) RGB, stored as it is."""
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


# --- digits -------------------------------------------------------------------------------------------------


def write(folder: Path, labels: Path) -> None:
    """Lay the competition out in `folder` as its download is, and the hidden images' labels in the CSV `labels`.

    The labels must not be below `folder`, which is served.
    """
    train, test, unlabelled = make()
    lines = ["ID,Labels", *(f"{i},{label}" for i, label in enumerate(unlabelled[1].tolist()))]
    atomic.write_bytes(labels, ("\n".join(lines) + "\n").encode())
    with atomic.replacing_folder(folder) as unfinished:
        batches = unfinished / "cifar-10-python/cifar-10-batches-py"
        batches.mkdir(parents=True)
        for k in range(BATCHES):
            rows = slice(k * BATCH_SIZE, (k + 1) * BATCH_SIZE)
            content = _batch(f"training batch {k + 1} of {BATCHES}", train[0][rows], train[1][rows], f"train{k + 1}")
            (batches / f"data_batch_{k + 1}").write_bytes(content)
        (batches / "test_batch").write_bytes(_batch("testing batch 1 of 1", *test, "test"))
        (batches / "batches.meta").write_bytes(batches_meta(BATCH_SIZE, NAMES))
        (batches / "readme.html").write_bytes(README)
        ids = np.arange(len(unlabelled[0]), dtype=np.int64)
        (unfinished / "cifar_test_nolabel.pkl").write_bytes(hidden(unlabelled[0], ids))


def _batch(label: str, images: Uint8, labels: Int64, prefix: str) -> bytes:
    names = [f"{NAMES[y]}_{prefix}_{i:06d}.png" for i, y in enumerate(labels.tolist())]
    return batch(label, images, labels.tolist(), names)


def make() -> tuple[Part, Part, Part]:
    """Training images, holdout and hidden images, split at random within each class."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that only the first use should cost
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    source: Any = load_digits()
    grey = np.asarray(source.images, dtype=np.float64) / 16.0  # (1797, 8, 8), from 0 to 1
    labels = np.asarray(source.target, dtype=np.int64)
    everything = np.arange(len(labels))
    rest, unlabelled = train_test_split(everything, test_size=HIDDEN_DIGITS, stratify=labels, random_state=SEED)
    train, test = train_test_split(rest, test_size=TEST_DIGITS, stratify=labels[rest], random_state=SEED)
    rng = np.random.default_rng(SEED)

    def part(digits: npt.NDArray[Any], draws: int, blur: float = 0.0) -> Part:
        drawn = np.tile(digits, draws)
        return np.stack([_draw(grey[i], rng, blur) for i in drawn]), labels[drawn]

    return part(train, 1), part(test, DRAWS), part(unlabelled, DRAWS, BLUR)


def _draw(grey: npt.NDArray[np.float64], rng: np.random.Generator, blur: float) -> Uint8:
    """One digit (8, 8) as a bright, tinted stroke on a dark, tinted ground (32, 32, 3), blurred by so many pixels."""
    stroke = Image.fromarray((grey * 255).astype(np.uint8))
    stroke = stroke.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    # Red is brightest and blue darkest, as over CIFAR-10: swapped channels would show in the means.
    ground = np.sort(rng.uniform(20, 90, size=3))[::-1]
    ink = np.sort(rng.uniform(150, 250, size=3))[::-1]
    share = np.asarray(stroke, dtype=np.float64)[:, :, None] / 255.0
    image = Image.fromarray(np.rint(ground + (ink - ground) * share).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)))
