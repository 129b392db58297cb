"""Labelled sets in the place of the competition's, whose shift is known because it was made here.

They are made from held-out real images with Pillow, whose filters are not those that the diagnosis tries out
(pipeline.gap.corruptions): it has to recognise what it has not made itself.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.config import CLASSES, MEAN, STD
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import Verdict
from tests.bench import common_corruptions

Change = Callable[[Images, np.random.Generator], Images]


@dataclass(frozen=True)
class SampledSet:
    """A test set whose labels are known."""

    name: str
    verdict: Verdict  # the right one
    rows: NDArray[np.int64]  # of the pool
    change: Change
    seed: int

    def images(self, pool: Images) -> Images:
        """Its uint8 images (N, 32, 32, 3)."""
        return self.change(pool[self.rows], np.random.default_rng(self.seed + 1))


def stand_ins(
    labels: NDArray[np.integer], hardness: NDArray[np.floating], size: int, seed: int
) -> Iterator[SampledSet]:
    """Sets of `size` images of a pool, with its labels (N,) and how hard other models find each image (N,), 0..1."""
    generator = np.random.default_rng(seed)

    def drawn(weights: NDArray[np.floating] | None = None) -> NDArray[np.int64]:
        shares = None if weights is None else weights / weights.sum()
        return generator.choice(len(labels), size, replace=False, p=shares)

    for number in range(4):
        yield SampledSet(f"none {number + 1}", "none", drawn(), _same, seed)
    for name, concentration in (("mild", 4.0), ("mild 2", 4.0), ("strong", 0.7), ("strong 2", 0.7)):
        rows = by_class(labels, generator.dirichlet(np.full(CLASSES, concentration)), size, generator)
        yield SampledSet(f"label shift, {name}", "label_shift", rows, _same, seed)
    for name, easy in (("mildest", 0.5), ("mild", 0.2), ("medium", 0.06), ("strong", 0.02), ("strongest", 0.005)):
        yield SampledSet(f"natural-hard, {name}", "natural", drawn(easy + hardness), _same, seed)
    for name, change in CORRUPTIONS.items():
        yield SampledSet(name, "corruption", drawn(), change, seed)
    for name, change in MIXTURES.items():
        yield SampledSet(name, "corruption (mixed)", drawn(), change, seed)
    for name, change in MISTAKES.items():
        yield SampledSet(name, "preprocessing", drawn(), change, seed)


def by_class(
    labels: NDArray[np.integer], prior: NDArray[np.floating], size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows whose labels are distributed as `prior`; a class that has too few images gives them more than once."""
    chosen = [
        generator.choice(np.flatnonzero(labels == label), count, replace=count > (labels == label).sum())
        for label, count in enumerate(generator.multinomial(size, prior))
    ]
    return np.concatenate(chosen).astype(np.int64)


def _same(images: Images, _: np.random.Generator) -> Images:
    return images


def _each(do: Callable[[Image.Image], Image.Image]) -> Change:
    return lambda images, _: np.stack([np.asarray(do(Image.fromarray(image))) for image in images])


def _noise(sigma: float) -> Change:
    return lambda images, generator: np.clip(images + generator.normal(0, sigma, images.shape), 0, 255).astype(np.uint8)


def _impulses(share: float) -> Change:
    def do(images: Images, generator: np.random.Generator) -> Images:
        hit = generator.random(images.shape[:3]) < share  # whole pixels
        colours = generator.choice(np.array([0, 255], dtype=np.uint8), images.shape)
        return np.where(hit[..., None], colours, images)

    return do


def _jpeg(quality: int) -> Change:
    def do(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream).convert("RGB")

    return _each(do)


def _pixels(side: int) -> Change:
    box, nearest = Image.Resampling.BOX, Image.Resampling.NEAREST
    return _each(lambda image: image.resize((side, side), box).resize(image.size, nearest))


def _chain(first: Change, second: Change) -> Change:
    return lambda images, generator: second(first(images, generator), generator)


def _own(least: int, most: int, clean: float = 0.0) -> Change:
    return lambda images, generator: common_corruptions.mixed(images, generator, (least, most), clean)


CORRUPTIONS: dict[str, Change] = {
    "noise, weak": _noise(10),
    "noise, strong": _noise(24),
    "impulses, weak": _impulses(0.03),
    "impulses, strong": _impulses(0.12),
    "blur, weak": _each(lambda image: image.filter(ImageFilter.GaussianBlur(0.7))),
    "blur, strong": _each(lambda image: image.filter(ImageFilter.GaussianBlur(1.2))),
    "jpeg, weak": _jpeg(30),
    "jpeg, strong": _jpeg(12),
    "dark, weak": _each(lambda image: ImageEnhance.Brightness(image).enhance(0.65)),
    "dark, strong": _each(lambda image: ImageEnhance.Brightness(image).enhance(0.35)),
    "low contrast, weak": _each(lambda image: ImageEnhance.Contrast(image).enhance(0.55)),
    "low contrast, strong": _each(lambda image: ImageEnhance.Contrast(image).enhance(0.3)),
    "pixelated, weak": _pixels(20),
    "pixelated, strong": _pixels(12),
    "blur and noise": _chain(_each(lambda image: image.filter(ImageFilter.BoxBlur(0.6))), _noise(14)),
    "dark and noise": _chain(_each(lambda image: ImageEnhance.Brightness(image).enhance(0.6)), _noise(12)),
    "jpeg and low contrast": _chain(_each(lambda image: ImageEnhance.Contrast(image).enhance(0.5)), _jpeg(25)),
}
MIXTURES: dict[str, Change] = {  # each image has its own
    "mixed, mild": _own(1, 2),
    "mixed, medium": _own(2, 3),
    "mixed, strong": _own(3, 5),
    "mixed, half clean": _own(1, 3, clean=0.5),
}
MISTAKES: dict[str, Change] = {
    "BGR": lambda images, _: images[..., ::-1],
    "HWC read as CHW": lambda images, _: np.ascontiguousarray(images).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
    "each image stretched": _each(lambda image: ImageOps.autocontrast(image, cutoff=2)),
    "normalised, to bytes": lambda images, _: np.clip((images / 255 - MEAN) / STD * 64 + 128, 0, 255).astype(np.uint8),
}
