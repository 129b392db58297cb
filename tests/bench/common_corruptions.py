"""The common corruptions of CIFAR-10-C, with its parameters, written apart from pipeline.gap.corruptions.

After make_cifar_c.py of Hendrycks and Dietterich 2019 (arXiv:1903.12261), on SciPy and Pillow.  The diagnosis has to
recognise what it has not made itself, and of shot noise, the blurs of motion, zoom and glass, and elastic transforms
it knows nothing.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, map_coordinates, zoom

from pipeline.gap.corruptions import Images

Pixels = NDArray[np.floating]  # one image, 0..1, (32, 32, 3)
Kind = Callable[[Pixels, int, np.random.Generator], Pixels]  # by severity, 0..4
SIZE = 32


def _gaussian(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    return x + generator.normal(0, (0.04, 0.06, 0.08, 0.09, 0.10)[severity], x.shape)


def _shot(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    photons = (500, 250, 100, 75, 50)[severity]
    return generator.poisson(x * photons) / photons


def _impulse(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    hit = generator.random(x.shape) < (0.01, 0.02, 0.03, 0.05, 0.07)[severity]  # single values, not pixels
    return np.where(hit, generator.integers(0, 2, x.shape), x)


def _disk(radius: float, alias: float) -> NDArray[np.floating]:
    at = np.arange(-8, 9)
    disk = (at[:, None] ** 2 + at**2 <= radius**2).astype(np.float64)
    kernel = np.asarray(gaussian_filter(disk / disk.sum(), alias, truncate=3 / alias if alias < 1 else 4))[5:12, 5:12]
    return np.asarray(kernel / kernel.sum())


def _defocus(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    kernel = _disk(*((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity])
    return np.asarray(convolve(x, kernel[..., None], mode="mirror"))


def _glass(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    sigma, times = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity]
    x = np.array(gaussian_filter(x, (sigma, sigma, 0)))
    for _ in range(times):
        for h in range(SIZE - 2, 0, -1):
            for w, (dy, dx) in zip(range(SIZE - 2, 0, -1), generator.integers(-1, 1, (SIZE - 2, 2)), strict=True):
                x[[h, h + dy], [w, w + dx]] = x[[h + dy, h], [w + dx, w]]
    return np.asarray(gaussian_filter(x, (sigma, sigma, 0)))


def _motion(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity]
    angle, kernel = np.deg2rad(generator.uniform(-45, 45)), np.zeros((2 * radius + 1, 2 * radius + 1))
    for step in range(radius + 1):  # one-sided, as ImageMagick's
        row, column = round(radius + step * np.sin(angle)), round(radius + step * np.cos(angle))
        kernel[row, column] += np.exp(-((step / sigma) ** 2) / 2)
    return np.asarray(convolve(x, kernel[..., None] / kernel.sum(), mode="nearest"))


def _zoom(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity], 0.01)
    out = x.copy()
    for factor in factors:
        side = int(np.ceil(SIZE / factor))
        top = (SIZE - side) // 2
        large = zoom(x[top : top + side, top : top + side], (factor, factor, 1), order=1)
        trim = (large.shape[0] - SIZE) // 2
        out += large[trim : trim + SIZE, trim : trim + SIZE]
    return out / (len(factors) + 1)


def _fog(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity]
    clouds = sum(
        zoom(generator.random((2**k + 1, 2**k + 1)), SIZE / (2**k + 1), order=1)[:SIZE, :SIZE] / decay**k
        for k in range(1, 6)
    )
    clouds = (clouds - np.min(clouds)) / np.ptp(clouds)
    return np.asarray((x + amount * clouds[..., None]) * x.max() / (x.max() + amount))


def _in_hsv(x: Pixels, change: Callable[[NDArray[np.floating]], NDArray[np.floating]], channel: int) -> Pixels:
    hsv = np.asarray(Image.fromarray(np.uint8(np.rint(255 * x))).convert("HSV")).copy()
    hsv[..., channel] = np.rint(255 * np.clip(change(hsv[..., channel] / 255), 0, 1))
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")) / 255


def _brightness(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    return _in_hsv(x, lambda value: value + (0.05, 0.1, 0.15, 0.2, 0.3)[severity], 2)


def _contrast(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    means = x.mean(axis=(0, 1))
    return np.asarray((x - means) * (0.75, 0.5, 0.4, 0.3, 0.15)[severity] + means)


def _saturate(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    times, plus = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity]
    return _in_hsv(x, lambda saturation: saturation * times + plus, 1)


def _through_pillow(x: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.asarray(change(Image.fromarray(np.uint8(np.rint(255 * x))))) / 255


def _pixelate(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    side, box = int(SIZE * (0.95, 0.9, 0.85, 0.75, 0.65)[severity]), Image.Resampling.BOX
    return _through_pillow(x, lambda image: image.resize((side, side), box).resize((SIZE, SIZE), box))


def _jpeg(x: Pixels, severity: int, _: np.random.Generator) -> Pixels:
    def compressed(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=(80, 65, 58, 50, 40)[severity])
        return Image.open(stream)

    return _through_pillow(x, compressed)


def _elastic(x: Pixels, severity: int, generator: np.random.Generator) -> Pixels:
    alpha, sigma, affine = (
        SIZE * np.array(each)
        for each in ((0, 1, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[
            severity
        ]
    )
    corners = np.array([[0, 0], [SIZE, 0], [0, SIZE]])
    moved = corners + generator.uniform(-affine, affine, (3, 2)) / 2
    linear = np.stack([moved[1] - moved[0], moved[2] - moved[0]], axis=1) / SIZE
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")).astype(np.float64)
    wave = np.stack([gaussian_filter(generator.uniform(-1, 1, (SIZE, SIZE)), sigma, mode="reflect") for _ in "yx"])
    at = np.einsum("ij,jhw->ihw", linear, grid) + moved[0][:, None, None] + alpha * wave
    return np.stack([map_coordinates(x[..., c], at, order=1, mode="reflect") for c in range(3)], axis=-1)


KINDS: Mapping[str, Kind] = {
    "gaussian noise": _gaussian, "shot noise": _shot, "impulse noise": _impulse, "defocus blur": _defocus,
    "glass blur": _glass, "motion blur": _motion, "zoom blur": _zoom, "fog": _fog, "brightness": _brightness,
    "contrast": _contrast, "saturate": _saturate, "pixelate": _pixelate, "jpeg": _jpeg, "elastic": _elastic,
}  # fmt: skip


def mixed(images: Images, generator: np.random.Generator, severities: tuple[int, int], clean: float = 0.0) -> Images:
    """Each image with a corruption of its own: a kind, and a severity from the first to the second, 1..5.

    Of uint8 images (N, 32, 32, 3); a share of `clean` stays as it is.
    """
    kinds, out = list(KINDS.values()), images.copy()
    for row in np.flatnonzero(generator.random(len(images)) >= clean).tolist():
        kind, severity = (
            kinds[int(generator.integers(len(kinds)))],
            int(generator.integers(severities[0], severities[1] + 1)),
        )
        out[row] = np.clip(np.rint(255 * kind(images[row] / 255, severity - 1, generator)), 0, 255)
    return out
