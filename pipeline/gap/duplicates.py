"""Which training image each image resembles most, pixel by pixel, and which are nearly the same one.

Images are compared as 8x8 thumbnails, each brought to mean 0 and length 1, so that brightness and contrast do not
count.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruptions import Images

SIDE = 8
PART = 5000  # training images compared at once
ALIKE = 0.97  # correlation of two thumbnails from which they count as one image


@dataclass(frozen=True)
class Nearest:
    """The training image that each of N images resembles most."""

    rows: NDArray[np.int64]  # (N,)
    correlations: NDArray[np.float32]  # (N,), up to 1

    @property
    def alike(self) -> NDArray[np.bool_]:
        """Which images nearly are that training image, (N,)."""
        return self.correlations > ALIKE


def nearest(images: Images, training: Images) -> Nearest:
    """Compare uint8 images (N, 32, 32, 3) with all of `training` (M, 32, 32, 3), which may be memory-mapped."""
    wanted = thumbnails(images)
    rows = np.zeros(len(images), dtype=np.int64)
    best = np.full(len(images), -1, dtype=np.float32)
    for start in range(0, len(training), PART):
        found = wanted @ thumbnails(np.asarray(training[start : start + PART])).T
        index = found.argmax(axis=1)
        value = found[np.arange(len(images)), index]
        closer = value > best
        rows[closer], best[closer] = start + index[closer], value[closer]
    return Nearest(rows, best)


def thumbnails(images: Images) -> NDArray[np.float32]:
    """Uint8 images (N, 32, 32, 3) -> float32 (N, 192)."""
    count, side = len(images), images.shape[1] // SIDE
    small = images.reshape(count, SIDE, side, SIDE, side, 3).mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    small -= small.mean(axis=1, keepdims=True)
    result: NDArray[np.float32] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return result
