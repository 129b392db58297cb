"""The known corruptions and preprocessing mistakes, as functions of images.

Each function takes and gives uint8 images (N, 32, 32, 3).  Corruptions follow Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations" (2019, arXiv:1903.12261); mistakes of preprocessing
are those that participants made.
"""

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import IMAGE_SIZE, MEAN, STD
from pipeline.store.cifar import unscrambled

Images = NDArray[np.uint8]
SEED = 0  # of the noises


def _clipped(values: NDArray[np.floating]) -> Images:
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


# NumPy is ten times slower where it sums over the three channels, or over two axes beside them, in one call.


def greys(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The means of the channels: (N, 32, 32, 3) -> (N, 32, 32)."""
    return (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)


def channel_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each channel of an image: (N, 32, 32, 3) -> (N, 1, 1, 3)."""
    return np.asarray(values.mean(axis=1, keepdims=True).mean(axis=2, keepdims=True))


# --- mistakes of preprocessing


def scramble(images: Images) -> Images:
    """HWC pixels read as CHW: `reshape(-1, 3, 32, 32)` of (N, 32, 32, 3)."""
    return np.ascontiguousarray(images).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1)


def standardise(images: Images, deviation: float) -> Images:
    """Each image normalised by itself: mean 128 and this standard deviation."""
    values = images.astype(np.float32)
    mean, own = (of(values, axis=(1, 2, 3), keepdims=True) for of in (np.mean, np.std))
    return _clipped(128 + deviation * (values - mean) / np.maximum(own, 1))


def normalise(images: Images, deviation: float) -> Images:
    """Normalised values stored as bytes: 128 for the data set's mean, `deviation` for its standard deviation."""
    mean, own = 255 * np.array(MEAN, dtype=np.float32), 255 * np.array(STD, dtype=np.float32)
    return _clipped(128 + deviation * (images - mean) / own)


# --- corruptions


def add_noise(images: Images, sigma: float) -> Images:
    """Gaussian noise of standard deviation `sigma`, of 255."""
    return _clipped(images + sigma * _normals(images.shape))


@functools.lru_cache(maxsize=4)  # a search tries many strengths on samples of a few sizes
def _normals(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.random.default_rng(SEED).standard_normal(shape)


def add_impulses(images: Images, share: float) -> Images:
    """This share of the pixels in colours whose channels are 0 or 255."""
    generator = np.random.default_rng(SEED)
    hit = generator.random(images.shape[:3]) < share
    return np.where(hit[..., None], np.where(generator.random(images.shape) < 0.5, np.uint8(0), np.uint8(255)), images)


def blur(images: Images, sigma: float) -> Images:
    """Gaussian blur of `sigma` pixels."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - a second that most commands need not take

    return _clipped(gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0)))


def pixelate(images: Images, side: float) -> Images:
    """Shrunk to `side` pixels a side by averaging, and enlarged without smoothing."""
    side = max(round(side), 1)
    edges = np.linspace(0, IMAGE_SIZE, side + 1)
    pixel = np.arange(IMAGE_SIZE)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    shrink = overlap.clip(0).astype(np.float32) * np.float32(side / IMAGE_SIZE)
    both = shrink[((pixel + 0.5) * side / IMAGE_SIZE).astype(np.int64)]  # (32, 32)
    rows = np.einsum("ij,njwc->niwc", both, images.astype(np.float32), optimize=True)
    return _clipped(np.einsum("ij,nwjc->nwic", both, rows, optimize=True))


def jpeg(images: Images, quality: float) -> Images:
    """JPEG of this quality."""

    def through(image: Images) -> Images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=round(quality))
        return np.asarray(Image.open(stream))

    return np.stack([through(image) for image in images])


def change_contrast(images: Images, factor: float) -> Images:
    """Contrast: distances from the image's mean times `factor`."""
    values = images.astype(np.float32)
    mean = channel_means(values)
    return _clipped(mean + np.float32(factor) * (values - mean))


def fog(images: Images, share: float) -> Images:
    """Blended with this share of light grey."""
    return _clipped(np.float32(1 - share) * images + np.float32(share * 220))


def saturate(images: Images, factor: float) -> Images:
    """Saturation: distances of the colours from grey times `factor`."""
    values = images.astype(np.float32)
    grey = greys(values)[..., None]
    return _clipped(grey + np.float32(factor) * (values - grey))


# --- by name


@dataclass(frozen=True)
class Kind:
    """A kind of corruption, of any strength."""

    cause: Literal["preprocessing", "corruption"]
    apply: Callable[[Images, float], Images]
    unit: str = ""  # of the strength
    strengths: tuple[float, ...] = (0.0,)  # tried first, ascending; the first and the last are the limits
    revert: Callable[[Images], Images] | None = None


def _mistake(apply: Callable[[Images], Images], revert: Callable[[Images], Images] | None = None) -> Kind:
    """A mistake of one strength; without `revert` it is its own inverse."""
    return Kind("preprocessing", lambda images, _: apply(images), revert=revert or apply)


KINDS: Mapping[str, Kind] = {
    "channels swapped, BGR for RGB": _mistake(lambda images: images[..., ::-1]),
    "pixels scrambled, HWC read as CHW": _mistake(scramble, unscrambled),
    "height and width exchanged": _mistake(lambda images: images.transpose(0, 2, 1, 3)),
    "values inverted": _mistake(lambda images: 255 - images),
    "each image normalised by itself": Kind("preprocessing", standardise, "deviation", (40, 64, 90)),
    "normalised values stored as bytes": Kind("preprocessing", normalise, "deviation", (20, 40, 64, 90)),
    "gaussian noise": Kind("corruption", add_noise, "deviation", (3, 8, 16, 32, 64)),
    "impulse noise": Kind("corruption", add_impulses, "share", (0.005, 0.02, 0.06, 0.15, 0.4)),
    "blur": Kind("corruption", blur, "sigma", (0.35, 0.5, 0.8, 1.3, 2.5)),
    "pixelation": Kind("corruption", pixelate, "pixels a side", (6, 12, 16, 20, 26)),
    "JPEG": Kind("corruption", jpeg, "quality", (4, 8, 20, 40, 65)),
    "exposure": Kind(
        "corruption", lambda images, by: _clipped(images * np.float32(by)), "times", (0.2, 0.4, 0.7, 1.4, 2)
    ),
    "brightness": Kind(
        "corruption", lambda images, by: _clipped(images + np.float32(by)), "plus", (-100, -50, -25, 25, 50, 100)
    ),
    "contrast": Kind("corruption", change_contrast, "times", (0.1, 0.35, 0.6, 0.8, 1.6, 2.5)),
    "fog": Kind("corruption", fog, "share", (0.15, 0.3, 0.6, 0.8)),
    "saturation": Kind("corruption", saturate, "times", (0.0, 0.3, 0.6, 1.5, 2.5)),
}


@dataclass(frozen=True)
class Corruption:
    """A corruption or a preprocessing mistake, with its strength."""

    name: str
    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ValueError(f"no corruption {self.name!r}")

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return KINDS[self.name]

    def __call__(self, images: Images) -> Images:
        """Corrupt the images (N, 32, 32, 3)."""
        return self.kind.apply(images, self.strength)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind.unit} {self.strength:.3g})" if self.kind.unit else self.name
