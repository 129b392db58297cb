"""The embedded competition: scikit-learn's 1,797 real handwritten digits, dressed as CIFAR-10.

1,000 images to train on, 297 to test on, 500 hidden ones.  The hidden ones are a little harder (turned,
moved, blurred, noisier), so that a model scores visibly less on them than locally, as in the real
competition.  Same seed, same bytes.
"""

import pickle
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.store import atomic

# --- Writes the competition's file formats: CIFAR-10's Python 2 pickles and the hidden images' pickle.


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


SLUG = "rehearsal-digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEED = 0
TEST_IMAGES = 297
HIDDEN_IMAGES = 500
BATCHES = 5  # of the remaining 1,000 training images

# How much harder the hidden images are: drawn evenly from [-x, x] or [0, x] for each image.
# Chosen so that a small CNN with 97-99 % on test_batch gets 85-93 % on them.
MAX_TURN = 12.0  # degrees
MAX_MOVE = 2  # pixels
MAX_BLUR = 0.8  # pixels, the Gaussian's radius
MAX_NOISE = 17.0  # of 255, the standard deviation
MIN_CONTRAST = 0.7

README = b"""<html><head><title>rehearsal-digits</title></head><body>
<p>Handwritten digits of scikit-learn's load_digits (E. Alpaydin, C. Kaynak: Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository), laid out as CIFAR-10 is.</p></body></html>
"""


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, 32, 32, 3) RGB and labels (N,) of the three parts."""

    train: tuple[Uint8, Int64]
    test: tuple[Uint8, Int64]
    hidden: tuple[Uint8, Int64]


def make(seed: int = SEED) -> Digits:
    """All images, split at random within each class."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that only the first use should cost
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    source: Any = load_digits()
    grey = np.asarray(source.images, dtype=np.float64) / 16.0  # (1797, 8, 8), from 0 to 1
    labels = np.asarray(source.target, dtype=np.int64)
    rest, hidden = train_test_split(np.arange(len(labels)), test_size=HIDDEN_IMAGES, stratify=labels, random_state=seed)
    train, test = train_test_split(rest, test_size=TEST_IMAGES, stratify=labels[rest], random_state=seed)
    rng = np.random.default_rng(seed)

    def part(indices: npt.NDArray[Any], harder: bool) -> tuple[Uint8, Int64]:
        return np.stack([_draw(grey[i], rng, harder) for i in indices]), labels[indices]

    return Digits(part(train, False), part(test, False), part(hidden, True))


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


def write(folder: Path, labels: Path, seed: int = SEED) -> Path:
    """Lay the competition out in `folder` as its download is, and the hidden labels in the CSV `labels`.

    Returns `folder`.  The labels do not belong into it: what is in it is served.
    """
    digits = make(seed)
    lines = ["ID,Labels", *(f"{i},{label}" for i, label in enumerate(digits.hidden[1].tolist()))]
    atomic.write_bytes(labels, ("\n".join(lines) + "\n").encode())
    with atomic.replacing_folder(folder) as unfinished:
        for name, content in _files(digits).items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_bytes(content)
    return folder


def _files(digits: Digits) -> dict[str, bytes]:
    """Path in the download -> content."""
    below = "cifar-10-python/cifar-10-batches-py/"
    images, labels = digits.train
    size = len(images) // BATCHES
    assert size * BATCHES == len(images)
    assert len(NAMES) == CLASSES
    files = {
        below + "batches.meta": batches_meta(size, NAMES),
        below + "readme.html": README,
        below + "test_batch": _batch("testing batch 1 of 1", *digits.test, "test"),
        "cifar_test_nolabel.pkl": hidden(digits.hidden[0], np.arange(len(digits.hidden[0]), dtype=np.int64)),
    }
    for number in range(1, BATCHES + 1):
        rows = slice((number - 1) * size, number * size)
        label = f"training batch {number} of {BATCHES}"
        files[f"{below}data_batch_{number}"] = _batch(label, images[rows], labels[rows], f"train{number}")
    return files


def _batch(label: str, images: Uint8, labels: Int64, prefix: str) -> bytes:
    names = [f"{NAMES[y]}_{prefix}_{i:06d}.png" for i, y in enumerate(labels.tolist())]
    return batch(label, images, labels.tolist(), names)
