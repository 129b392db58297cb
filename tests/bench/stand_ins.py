"""Labelled stand-ins for a hidden set, whose shift is known because it was made here.

They are made from held-out real images with Pillow, whose filters are not those that the diagnosis tries out
(pipeline.gap.corruptions): it has to recognise what it has not made itself.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.gap.diagnosis import Verdict

Images = NDArray[np.uint8]
Change = Callable[[Images], Images]
CLASSES = 10


@dataclass(frozen=True)
class SampledSet:
    """A hidden set whose labels are known."""

    name: str
    verdict: Verdict  # the right one
    rows: NDArray[np.int64]  # of the pool
    change: Change

    def images(self, pool: Images) -> Images:
        """Its uint8 images (N, 32, 32, 3)."""
        return self.change(pool[self.rows])


def stand_ins(
    labels: NDArray[np.integer], hardness: NDArray[np.floating], size: int, seed: int
) -> Iterator[SampledSet]:
    """Sets of `size` images of a pool, with its labels (N,) and how hard other networks find each image (N,), 0..1."""
    generator = np.random.default_rng(seed)

    def drawn(weights: NDArray[np.floating] | None = None) -> NDArray[np.int64]:
        shares = None if weights is None else weights / weights.sum()
        return generator.choice(len(labels), size, replace=False, p=shares)

    for number in range(4):
        yield SampledSet(f"none {number + 1}", "none", drawn(), _same)
    for name, concentration in (("mild", 4.0), ("mild 2", 4.0), ("strong", 0.7), ("strong 2", 0.7)):
        prior = generator.dirichlet(np.full(CLASSES, concentration))
        yield SampledSet(f"label shift, {name}", "label_shift", by_class(labels, prior, size, generator), _same)
    for name, easy in (("mild", 0.2), ("medium", 0.06), ("strong", 0.02)):
        yield SampledSet(f"natural-hard, {name}", "natural", drawn(easy + hardness), _same)
    for name, changes in CORRUPTIONS.items():
        for degree, change in zip(("weak", "strong"), changes, strict=True):
            yield SampledSet(f"{name}, {degree}", "corruption", drawn(), _seeded(change, seed))
    for name, change in MIXES.items():
        yield SampledSet(name, "corruption", drawn(), _seeded(change, seed))
    for name, change in MISTAKES.items():
        yield SampledSet(name, "preprocessing", drawn(), _seeded(change, seed))


def by_class(
    labels: NDArray[np.integer], prior: NDArray[np.floating], size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows whose labels are distributed as `prior`; a class that has too few images gives them more than once."""
    counts = generator.multinomial(size, prior)
    chosen = [
        generator.choice(np.flatnonzero(labels == label), count, replace=count > (labels == label).sum())
        for label, count in enumerate(counts)
    ]
    return np.concatenate(chosen).astype(np.int64)


# --- changes ----------------------------------------------------------------------------------------------

Random = Callable[[Images, np.random.Generator], Images]


def _same(images: Images) -> Images:
    return images


def _seeded(change: Random, seed: int) -> Change:
    return lambda images: change(images, np.random.default_rng(seed + 1))


def _each(do: Callable[[Image.Image], Image.Image]) -> Random:
    return lambda images, _: np.stack([np.asarray(do(Image.fromarray(image))) for image in images])


def _noise(sigma: float) -> Random:
    return lambda images, generator: np.clip(images + generator.normal(0, sigma, images.shape), 0, 255).astype(np.uint8)


def _impulses(share: float) -> Random:
    def do(images: Images, generator: np.random.Generator) -> Images:
        hit = generator.random(images.shape[:3]) < share  # whole pixels
        colours = generator.choice(np.array([0, 255], dtype=np.uint8), images.shape)
        return np.where(hit[..., None], colours, images)

    return do


def _jpeg(quality: int) -> Random:
    def do(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream).convert("RGB")

    return _each(do)


def _blur(radius: float) -> Random:
    return _each(lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def _box(radius: float) -> Random:
    return _each(lambda image: image.filter(ImageFilter.BoxBlur(radius)))


def _brightness(factor: float) -> Random:
    return _each(lambda image: ImageEnhance.Brightness(image).enhance(factor))


def _contrast(factor: float) -> Random:
    return _each(lambda image: ImageEnhance.Contrast(image).enhance(factor))


def _pixels(side: int) -> Random:
    return _each(
        lambda image: image.resize((side, side), Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)
    )


def _chain(*changes: Random) -> Random:
    def do(images: Images, generator: np.random.Generator) -> Images:
        for change in changes:
            images = change(images, generator)
        return images

    return do


CORRUPTIONS: dict[str, tuple[Random, Random]] = {
    "noise": (_noise(10), _noise(24)),
    "impulses": (_impulses(0.03), _impulses(0.12)),
    "blur": (_blur(0.7), _blur(1.2)),
    "jpeg": (_jpeg(30), _jpeg(12)),
    "dark": (_brightness(0.65), _brightness(0.35)),
    "low contrast": (_contrast(0.55), _contrast(0.3)),
    "pixelated": (_pixels(20), _pixels(12)),
}
MIXES: dict[str, Random] = {
    "blur and noise": _chain(_box(0.6), _noise(14)),
    "dark and noise": _chain(_brightness(0.6), _noise(12)),
    "jpeg and low contrast": _chain(_contrast(0.5), _jpeg(25)),
}
MISTAKES: dict[str, Random] = {
    "BGR": lambda images, _: images[..., ::-1],
    "HWC read as CHW": lambda images, _: np.ascontiguousarray(images).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
    "each image stretched": _each(lambda image: ImageOps.autocontrast(image, cutoff=2)),
    "normalised, to bytes": lambda images, _: np.clip(
        ((images / 255 - (0.4914, 0.4822, 0.4465)) / (0.2023, 0.1994, 0.2010)) * 64 + 128, 0, 255
    ).astype(np.uint8),
}
