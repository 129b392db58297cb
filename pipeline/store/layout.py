"""How the pixels of an image file lie in memory: found by looking, because the wrong guess raises no error.

Natural images are smooth: a pixel resembles its neighbour.  Read in the wrong layout they look like noise,
so among the possible readings the right one has by far the smallest mean difference between neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import IMAGE_SIZE

Images = NDArray[np.uint8]
S = IMAGE_SIZE
SAMPLE = 512  # images that are looked at
FEW = 30  # images, of which a mean colour says nothing
CLEAR = 1.25  # another reading must be this many times smoother to be believed against the file's own shape


def _as_is(images: Images) -> Images:
    return images


def _flat_channel_first(images: Images) -> Images:
    return np.ascontiguousarray(images.reshape(-1, 3, S, S).transpose(0, 2, 3, 1))


def _flat_channel_last(images: Images) -> Images:
    return images.reshape(-1, S, S, 3)


def _channel_first(images: Images) -> Images:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _unscramble(images: Images) -> Images:
    """Undo `hwc.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)`, the trap that scrambles every image."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, S, S, 3)


Reading = Callable[[Images], Images]

# For each shape of one row: the readings, the expected one first.
READINGS: dict[tuple[int, ...], dict[str, Reading]] = {
    (S, S, 3): {
        "HWC": _as_is,
        "CHW data in an HWC shape": _flat_channel_first,
        "HWC data that was reshaped to CHW and transposed": _unscramble,
    },
    (3, S, S): {"CHW": _channel_first, "HWC data in a CHW shape": _flat_channel_last},
    (3 * S * S,): {"flat CHW": _flat_channel_first, "flat HWC": _flat_channel_last},
}


@dataclass(frozen=True)
class Layout:
    """The reading that was chosen."""

    name: str
    expected: bool  # whether it is what the file's shape says
    smoothness: dict[str, float]  # mean absolute difference of neighbouring pixels, per reading, 0..255


def roughness(images: Images) -> float:
    """Mean absolute difference between neighbouring pixels of uint8 (N, 32, 32, 3), in grey levels 0..255."""
    x = images.astype(np.int16)
    return float((np.abs(np.diff(x, axis=1)).mean() + np.abs(np.diff(x, axis=2)).mean()) / 2)


def detect(images: Images) -> Layout:
    """Find out how `images`, uint8 (N, 32, 32, 3), (N, 3, 32, 32) or (N, 3072), must be read.

    The file's own shape is believed unless another reading is clearly smoother.
    """
    sample = images[:: max(1, len(images) // SAMPLE)][:SAMPLE]
    readings = READINGS[images.shape[1:]]
    rough = {name: roughness(read(sample)) for name, read in readings.items()}
    expected, best = next(iter(readings)), min(rough, key=rough.__getitem__)
    chosen = best if rough[expected] > CLEAR * rough[best] else expected
    return Layout(chosen, chosen == expected, {name: round(value, 2) for name, value in rough.items()})


def read(images: Images, layout: Layout) -> Images:
    """`images` as uint8 (N, 32, 32, 3)."""
    return READINGS[images.shape[1:]][layout.name](images)


def channel_order(images: Images, reference: Images) -> str:
    """ "RGB", "BGR" or "unclear": whether the colour of `images` leans the way `reference` (RGB) leans.

    Both uint8 (N, 32, 32, 3).  Compares red minus blue, averaged over images, in units of its standard
    error; grey images, few images and sets without a lean stay unclear.
    """
    if min(len(images), len(reference)) < FEW:
        return "unclear"
    lean, error = _lean(images)
    reference_lean, reference_error = _lean(reference)
    if abs(reference_lean) < 4 * reference_error or abs(lean) < 4 * error:
        return "unclear"
    return "RGB" if lean * reference_lean > 0 else "BGR"


def _lean(images: Images) -> tuple[float, float]:
    """Mean of red minus blue over images, and its standard error, in grey levels."""
    per_image = images[..., 0].mean(axis=(1, 2)) - images[..., 2].mean(axis=(1, 2))
    return float(per_image.mean()), float(per_image.std() / np.sqrt(len(per_image))) + 1e-6
