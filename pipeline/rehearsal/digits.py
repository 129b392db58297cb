"""The embedded competition: scikit-learn's 1,797 handwritten digits in the competition's file formats.

1,000 training images, 297 of the holdout, 500 hidden ones.  The hidden set is a little harder (turned, shifted,
blurred, noisier), so that a model scores visibly less on it than locally, as in the real competition.  Same seed, same
bytes.
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
TEST_IMAGES = 297
HIDDEN_IMAGES = 500
BATCHES = 5  # of the remaining 1,000 training images
BATCH_SIZE = 200

# How much harder the hidden set is: drawn evenly from [-x, x] or [0, x] for each image.
# Chosen so that a small CNN with 97-99 % on test_batch gets 85-93 % on it.
MAX_TURN = 12.0  # degrees
MAX_MOVE = 2  # pixels
MAX_BLUR = 0.8  # pixels, the Gaussian's radius
MAX_NOISE = 17.0  # of 255, the standard deviation
MIN_CONTRAST = 0.7

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
        ids = np.arange(HIDDEN_IMAGES, dtype=np.int64)
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
    rest, unlabelled = train_test_split(everything, test_size=HIDDEN_IMAGES, stratify=labels, random_state=SEED)
    train, test = train_test_split(rest, test_size=TEST_IMAGES, stratify=labels[rest], random_state=SEED)
    rng = np.random.default_rng(SEED)

    def part(indices: npt.NDArray[Any], harder: bool) -> Part:
        return np.stack([_draw(grey[i], rng, harder) for i in indices]), labels[indices]

    return part(train, False), part(test, False), part(unlabelled, True)


def _draw(grey: npt.NDArray[np.float64], rng: np.random.Generator, harder: bool) -> Uint8:
    """One digit (8, 8) as a bright, tinted stroke on a dark, tinted ground (32, 32, 3)."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    stroke = Image.fromarray((grey * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    contrast = 1.0
    if harder:
        stroke, contrast = _distort(stroke, rng), rng.uniform(MIN_CONTRAST, 1.0)
    # Red is brightest and blue darkest, as over CIFAR-10: swapped channels would show in the means.
    ground = np.sort(rng.uniform(20, 90, size=3))[::-1]
    ink = np.sort(rng.uniform(150, 250, size=3))[::-1]
    ink = ground + (ink - ground) * contrast
    share = np.asarray(stroke, dtype=np.float64)[:, :, None] / 255.0
    pixels = ground + (ink - ground) * share
    if harder:
        pixels = pixels + rng.normal(0.0, rng.uniform(0.0, MAX_NOISE), size=pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _distort(stroke: Image.Image, rng: np.random.Generator) -> Image.Image:
    turned = stroke.rotate(
        rng.uniform(-MAX_TURN, MAX_TURN),
        resample=Image.Resampling.BICUBIC,
        translate=(int(rng.integers(-MAX_MOVE, MAX_MOVE + 1)), int(rng.integers(-MAX_MOVE, MAX_MOVE + 1))),
    )
    return turned.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, MAX_BLUR)))
