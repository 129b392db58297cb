"""The embedded competition: scikit-learn's 1,797 handwritten digits, laid out like the competition's files.

They are from E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI Machine Learning Repository).
1,000 digits are for training, 297 for the holdout, 500 for the test set; the latter two are drawn twice each, in
different colours.  The test images are blurred, so that there is a gap to diagnose and to mitigate.  Same seed, same
bytes.
"""

import pickle
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

SLUG = "rehearsal-digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEED = 0
TEST_DIGITS = 297
HIDDEN_DIGITS = 500
DRAWS = 2  # of each of these; fewer images would widen the predicted interval
BATCHES = 5  # of the remaining 1,000 training images
BATCH_SIZE = 200
# The shift was chosen to show what the pipeline is good at: it recognises a blur, and batch-norm adaptation recovers
# most of the loss (tests/bench/rehearsal.py).
BLUR = 2.4  # pixels, sigma of the Gaussian


def write(folder: Path, labels: Path) -> None:
    """Write the competition's files into `folder`, and the test labels into the CSV `labels`, outside `folder`."""
    train, test, unlabelled = make()
    lines = ["ID,Labels", *(f"{i},{label}" for i, label in enumerate(unlabelled[1].tolist()))]
    atomic.write_bytes(labels, ("\n".join(lines) + "\n").encode())
    with atomic.replacing_folder(folder) as unfinished:
        batches = unfinished / "cifar-10-python/cifar-10-batches-py"
        batches.mkdir(parents=True)
        for k in range(BATCHES):
            rows = slice(k * BATCH_SIZE, (k + 1) * BATCH_SIZE)
            (batches / f"data_batch_{k + 1}").write_bytes(_batch(train[0][rows], train[1][rows]))
        (batches / "test_batch").write_bytes(_batch(*test))
        (batches / "batches.meta").write_bytes(_pickle({b"label_names": [name.encode() for name in NAMES]}))
        ids = np.arange(len(unlabelled[0]), dtype=np.int64)
        (unfinished / "cifar_test_nolabel.pkl").write_bytes(_pickle({b"data": unlabelled[0], b"ids": ids}))


def _batch(images: Uint8, labels: Int64) -> bytes:
    """A data_batch or test_batch, images flat and channel-first."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return _pickle({b"labels": labels.tolist(), b"data": flat})


def _pickle(values: dict[bytes, Any]) -> bytes:
    return pickle.dumps(values, protocol=4)


def make() -> tuple[Part, Part, Part]:
    """Training images, holdout and test images, split at random within each class."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second
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
    """One digit (8, 8) as a bright, tinted stroke on a dark, tinted ground (32, 32, 3), blurred by `blur` pixels."""
    stroke = Image.fromarray((grey * 255).astype(np.uint8))
    stroke = stroke.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    # Red is brightest and blue darkest, as in CIFAR-10, so that swapped channels show in the means.
    ground = np.sort(rng.uniform(20, 90, size=3))[::-1]
    ink = np.sort(rng.uniform(150, 250, size=3))[::-1]
    share = np.asarray(stroke, dtype=np.float64)[:, :, None] / 255.0
    image = Image.fromarray(np.rint(ground + (ink - ground) * share).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)))
