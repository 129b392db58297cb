"""The embedded competition: scikit-learn's 1,797 real handwritten digits, dressed as CIFAR-10.

1,000 images to train on, 297 to test on, 500 hidden ones.  The hidden ones are a little harder (turned,
moved, blurred, noisier), so that a model scores visibly less on them than locally, as in the real
competition.  Same seed, same bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.rehearsal import cifar_format
from pipeline.rehearsal.cifar_format import Int64, Uint8
from pipeline.store import atomic

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
        below + "batches.meta": cifar_format.batches_meta(size, NAMES),
        below + "readme.html": README,
        below + "test_batch": _batch("testing batch 1 of 1", *digits.test, "test"),
        "cifar_test_nolabel.pkl": cifar_format.hidden(
            digits.hidden[0], np.arange(len(digits.hidden[0]), dtype=np.int64)
        ),
    }
    for number in range(1, BATCHES + 1):
        rows = slice((number - 1) * size, number * size)
        label = f"training batch {number} of {BATCHES}"
        files[f"{below}data_batch_{number}"] = _batch(label, images[rows], labels[rows], f"train{number}")
    return files


def _batch(label: str, images: Uint8, labels: Int64, prefix: str) -> bytes:
    names = [f"{NAMES[y]}_{prefix}_{i:06d}.png" for i, y in enumerate(labels.tolist())]
    return cifar_format.batch(label, images, labels.tolist(), names)
