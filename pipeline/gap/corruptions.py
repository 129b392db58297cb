"""What may have happened to images between the camera and the file: to be recognised, it is done to labelled ones.

Each function takes and gives uint8 images (N, 32, 32, 3).  Corruptions follow Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations" (2019, arXiv:1903.12261); mistakes of preprocessing
are those that people made.
"""

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
    result: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


# NumPy is ten times slower where it sums over the three channels, or over two axes beside them, in one call.


def greys(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The means of the channels: (N, 32, 32, 3) -> (N, 32, 32)."""
    means: NDArray[np.float32] = (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)
    return means


def channel_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each channel of an image: (N, 32, 32, 3) -> (N, 1, 1, 3)."""
    means: NDArray[np.float32] = values.mean(axis=1, keepdims=True).mean(axis=2, keepdims=True)
    return means


# --- mistakes ---------------------------------------------------------------------------------------------


def swapped_channels(images: Images) -> Images:
    """BGR for RGB; done twice, nothing is done."""
    return images[..., ::-1]


def scrambled(images: Images) -> Images:
    """HWC pixels read as CHW: `reshape(-1, 3, 32, 32)` of what lies as (N, 32, 32, 3)."""
    return np.ascontiguousarray(images).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1)


def transposed(images: Images) -> Images:
    """Height and width exchanged: images that lie on their sides; done twice, nothing is done."""
    return images.transpose(0, 2, 1, 3)


def inverted(images: Images) -> Images:
    """Negatives; done twice, nothing is done."""
    return 255 - images


def standardised(images: Images, deviation: float) -> Images:
    """Each image brought to mean 128 and this deviation: a normalisation of its own."""
    values = images.astype(np.float32)
    mean, own = (of(values, axis=(1, 2, 3), keepdims=True) for of in (np.mean, np.std))
    return _clipped(128 + deviation * (values - mean) / np.maximum(own, 1))


def normalised(images: Images, deviation: float) -> Images:
    """The normalised values of the data set stored as bytes: 128 for its mean, and so much for its deviation."""
    mean, own = 255 * np.array(MEAN, dtype=np.float32), 255 * np.array(STD, dtype=np.float32)
    return _clipped(128 + deviation * (images - mean) / own)


# --- corruptions ------------------------------------------------------------------------------------------


def noisy(images: Images, sigma: float) -> Images:
    """Gaussian noise of standard deviation `sigma`, of 255."""
    return _clipped(images + np.random.default_rng(SEED).normal(0, sigma, images.shape))


def speckled(images: Images, share: float) -> Images:
    """This share of the pixels in colours whose channels are 0 or 255."""
    generator = np.random.default_rng(SEED)
    hit = generator.random(images.shape[:3]) < share
    return np.where(hit[..., None], np.where(generator.random(images.shape) < 0.5, np.uint8(0), np.uint8(255)), images)


def blurred(images: Images, sigma: float) -> Images:
    """Gaussian blur of `sigma` pixels."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - a second that most commands need not take

    return _clipped(gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0)))


def pixelated(images: Images, side: float) -> Images:
    """Shrunk to `side` pixels a side by averaging, and drawn large again without smoothing."""
    side = max(round(side), 1)
    edges = np.linspace(0, IMAGE_SIZE, side + 1)
    pixel = np.arange(IMAGE_SIZE)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    shrink = overlap.clip(0).astype(np.float32) * np.float32(side / IMAGE_SIZE)
    both = shrink[((pixel + 0.5) * side / IMAGE_SIZE).astype(np.int64)]  # (32, 32)
    rows = np.einsum("ij,njwc->niwc", both, images.astype(np.float32), optimize=True)
    return _clipped(np.einsum("ij,nwjc->nwic", both, rows, optimize=True))


def compressed(images: Images, quality: float) -> Images:
    """JPEG of this quality."""
    return np.stack([_through_jpeg(image, round(quality)) for image in images])


def _through_jpeg(image: Images, quality: int) -> Images:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def exposed(images: Images, factor: float) -> Images:
    """All values times `factor`."""
    return _clipped(images * np.float32(factor))


def brightened(images: Images, by: float) -> Images:
    """`by`, of 255, added to all values."""
    return _clipped(images + np.float32(by))


def flattened(images: Images, factor: float) -> Images:
    """Contrast: distances from the image's mean times `factor`."""
    values = images.astype(np.float32)
    mean = channel_means(values)
    return _clipped(mean + np.float32(factor) * (values - mean))


def faded(images: Images, share: float) -> Images:
    """Fog: blended with this share of light grey."""
    return _clipped(np.float32(1 - share) * images + np.float32(share * 220))


def coloured(images: Images, factor: float) -> Images:
    """Saturation: distances of the colours from grey times `factor`."""
    values = images.astype(np.float32)
    grey = greys(values)[..., None]
    return _clipped(grey + np.float32(factor) * (values - grey))


# --- by name ----------------------------------------------------------------------------------------------

Kind = Literal["preprocessing", "corruption"]


@dataclass(frozen=True)
class Damage:
    """Something that changes images, in whatever strength."""

    kind: Kind
    name: str
    do: Callable[[Images, float], Images]
    strengths: tuple[float, ...] = (0.0,)  # tried first, ascending; the last and the first are the limits
    meaning: str = ""  # of the strength
    undo: Callable[[Images], Images] | None = None


@dataclass(frozen=True)
class Done:
    """A damage of a certain strength."""

    name: str
    strength: float = 0.0

    @property
    def damage(self) -> Damage:
        """Which."""
        return DAMAGES[self.name]

    def __call__(self, images: Images) -> Images:
        """Damage them."""
        return self.damage.do(images, self.strength)

    def __str__(self) -> str:
        meaning = self.damage.meaning
        return f"{self.name} ({meaning} {self.strength:.3g})" if meaning else self.name


def _mistake(name: str, do: Callable[[Images], Images], undo: Callable[[Images], Images]) -> Damage:
    return Damage("preprocessing", name, lambda images, _: do(images), undo=undo)


def _corruption(name: str, do: Callable[[Images, float], Images], meaning: str, *strengths: float) -> Damage:
    return Damage("corruption", name, do, strengths, meaning)


DAMAGES: Mapping[str, Damage] = {
    damage.name: damage
    for damage in (
        _mistake("channels swapped, BGR for RGB", swapped_channels, swapped_channels),
        _mistake("pixels scrambled, HWC read as CHW", scrambled, unscrambled),
        _mistake("height and width exchanged", transposed, transposed),
        _mistake("values inverted", inverted, inverted),
        Damage("preprocessing", "each image normalised by itself", standardised, (40, 64, 90), "deviation"),
        Damage("preprocessing", "normalised values stored as bytes", normalised, (20, 40, 64, 90), "deviation"),
        _corruption("gaussian noise", noisy, "deviation", 3, 8, 16, 32, 64),
        _corruption("impulse noise", speckled, "share", 0.005, 0.02, 0.06, 0.15, 0.4),
        _corruption("blur", blurred, "sigma", 0.35, 0.5, 0.8, 1.3, 2.5),
        _corruption("pixelation", pixelated, "pixels a side", 6, 12, 16, 20, 26),
        _corruption("JPEG", compressed, "quality", 4, 8, 20, 40, 65),
        _corruption("exposure", exposed, "times", 0.2, 0.4, 0.7, 1.4, 2),
        _corruption("brightness", brightened, "plus", -100, -50, -25, 25, 50, 100),
        _corruption("contrast", flattened, "times", 0.1, 0.35, 0.6, 0.8, 1.6, 2.5),
        _corruption("fog", faded, "share", 0.15, 0.3, 0.6, 0.8),
        _corruption("saturation", coloured, "times", 0.0, 0.3, 0.6, 1.5, 2.5),
    )
}
