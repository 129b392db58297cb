"""Which mistake or corruption makes labelled images look like the hidden ones, by statistics of their pixels.

Each known damage is done to labelled images, and the one that brings their statistics nearest to those of the hidden
images is named, if it explains most of the difference.  What it cannot explain is left to others: natural images that
are merely harder differ little in these numbers, and not in the direction of any damage.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruptions import DAMAGES, Damage, Done, Images, channel_means, greys
from pipeline.store.processed import even_rows

# --- Numbers that tell images apart without looking at what they show: colour, contrast, sharpness, noise


NAMES = (
    "red", "green", "blue", "red - blue", "contrast", "range", "colourfulness", "saturated", "edges", "noise",
    "roughness", "blocks of 8", "blocks of 2", "impulses", "sides alike", "rows against columns",
)  # fmt: skip


QUALITY = ("roughness", "blocks of 8", "blocks of 2", "impulses")  # what natural images share, whatever they show


def measure(images: Images) -> NDArray[np.float64]:
    """Uint8 images (N, 32, 32, 3) -> (N, len(NAMES)), in units of their own."""
    values = images.astype(np.float32)
    light, means = greys(values), channel_means(values)[:, 0, 0]
    across, down = abs(np.diff(light, axis=2)), abs(np.diff(light, axis=1))
    columns, rows = across.mean(axis=1), down.mean(axis=2)  # (N, 31): by the border between two pixels
    edges = (columns.mean(axis=1) + rows.mean(axis=1)) / 2
    noise = abs(_second_difference(light)).mean(axis=(1, 2))
    colours = np.stack([values[..., 0] - values[..., 1], (values[..., 0] + values[..., 1]) / 2 - values[..., 2]])
    parts = [
        *means.T,
        means[:, 0] - means[:, 2],
        light.std(axis=(1, 2)),
        np.subtract(*np.quantile(light, (0.98, 0.02), axis=(1, 2))),
        colours.std(axis=(2, 3)).sum(axis=0),
        ((images == 0) | (images == 255)).mean(axis=(1, 2, 3)),
        np.log1p(edges),
        np.log1p(noise),
        np.log((noise + 1) / (edges + 1)),
        _excess(columns, rows, 8),
        _excess(columns, rows, 2),
        (abs(values - _neighbours(values)) > 60).mean(axis=(1, 2, 3)),
        np.log((abs(light - light[:, :, ::-1]).mean(axis=(1, 2)) + 1) / (light.std(axis=(1, 2)) + 1)),
        np.log((columns.mean(axis=1) + 1) / (rows.mean(axis=1) + 1)),
    ]
    return np.stack(parts, axis=1).astype(np.float64)


def _second_difference(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Immerkaer's mask, which answers to noise and not to edges ("Fast noise variance estimation", 1996)."""
    across = light[:, :, 2:] - 2 * light[:, :, 1:-1] + light[:, :, :-2]
    found: NDArray[np.float32] = across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2]
    return found


def _excess(columns: NDArray[np.float32], rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """How much larger steps are on the borders of squares of `size` pixels than elsewhere: a logarithm."""
    border = np.arange(1, columns.shape[1] + 1) % size == 0
    on, off = (columns[:, where].mean(axis=1) + rows[:, where].mean(axis=1) for where in (border, ~border))
    found: NDArray[np.float32] = np.log((on + 1) / (off + 1))
    return found


def _neighbours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the four neighbours, those beyond the border being the border's own."""
    wide = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    found: NDArray[np.float32] = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1]
    for side in (wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]):
        found += side
    found /= 4
    return found


SAMPLE = 600  # images of each set
FIRST = 200  # of these, for a first look at each damage
PAIRED = 60  # and at each pair of damages
NOTICEABLE = 0.6  # distance below which two samples count as alike; those of 600 images of one set differ by .2 to .35
CHANCE = 2.0  # or times the distance to be expected of samples so small
EXPLAINED = 0.6  # share of the distance that the damages may leave, and still be named
WELL = 0.25  # share of the distance, below which no second damage is looked for
SECOND = 0.7  # share of what one damage leaves, that a second may leave, and be named too
NEAREST = 3  # single damages whose strength is refined, and with which pairs begin
REFINED = 8  # evaluations to refine a strength
STRANGE = 2.0  # times that distance, from which images are damaged even if no known damage explains it
SPOILT = 1.0  # deviations of a single image, by which damage changes the mean of a statistic of quality


@dataclass(frozen=True)
class Found:
    """What happened to the hidden images, as far as pixels tell."""

    distance: float  # of the hidden images from labelled ones; 0.2 to 0.35 is nothing
    damages: tuple[Done, ...]  # what explains it, in the order of its doing; none if nothing does, or need be
    left: float  # the distance that they leave
    outstanding: tuple[tuple[str, float], ...]  # the statistics that differ most, in deviations of a single image
    spoilt: bool  # statistics of quality, not of content, differ beyond all natural measure
    limit: float = NOTICEABLE  # distance from which anything is noticeable

    @property
    def noticeable(self) -> bool:
        """Whether the pixels differ at all."""
        return self.distance > self.limit

    @property
    def strange(self) -> bool:
        """Whether they differ so much that the images are damaged, even if no known damage explains it."""
        return self.distance > STRANGE * self.limit

    @property
    def undoes(self) -> Callable[[Images], Images] | None:
        """What turns the hidden images back into what they were, if that is possible."""
        return self.damages[0].damage.undo if len(self.damages) == 1 else None

    def does(self, images: Images) -> Images:
        """Damage uint8 images (N, 32, 32, 3) in the same way."""
        for done in self.damages:
            images = done(images)
        return images


def find(labelled: Images, hidden: Images) -> Found:
    """Compare even samples of uint8 images (N, 32, 32, 3).  Takes a second, and up to 20 where damages are mixed."""
    place, sample = _Place(sampled(labelled, SAMPLE)), sampled(hidden, SAMPLE)
    target = place.of(sample)
    distance, away = float(np.linalg.norm(target)), np.sinh(target)
    outstanding = tuple((NAMES[k], float(away[k])) for k in np.argsort(-abs(target))[:3].tolist())
    limit = max(NOTICEABLE, CHANCE * math.sqrt(len(NAMES) * (1 / len(place.labelled) + 1 / len(sample))))
    found = Found(distance, (), distance, outstanding, spoilt=False, limit=limit)
    if not found.noticeable:
        return found
    spoilt = found.strange and any(abs(away[NAMES.index(name)]) > SPOILT for name in QUALITY)
    damages, left = _explained(place, target, limit)
    if left > max(EXPLAINED * distance, limit):
        damages, left = (), distance
    return dataclasses.replace(found, damages=damages, left=left, spoilt=spoilt)


class _Place:
    """Where images lie among the labelled ones."""

    def __init__(self, labelled: Images) -> None:
        self.labelled = labelled
        plain = measure(labelled)
        self._centre, self._scale = plain.mean(axis=0), plain.std(axis=0) + 1e-6
        # Of two damages the first stays as it is while strengths of the second are tried.
        self._damaged_before = functools.lru_cache(maxsize=1)(self._damaged)

    def of(self, images: Images) -> NDArray[np.float64]:
        """Mean statistics in deviations, large ones dampened: where nearly all images have 0, any damage is huge."""
        away = (measure(images).mean(axis=0) - self._centre) / self._scale
        found: NDArray[np.float64] = np.arcsinh(away)
        return found

    def distance(self, damages: Sequence[Done], target: NDArray[np.float64], count: int = SAMPLE) -> float:
        """From the target, of the labelled images with these damages done to them."""
        images = damages[-1](self._damaged_before(tuple(damages[:-1]), count))
        return float(np.linalg.norm(self.of(images) - target))

    def _damaged(self, damages: tuple[Done, ...], count: int) -> Images:
        images = self.labelled[:: max(len(self.labelled) // count, 1)]
        for done in damages:
            images = done(images)
        return images


def _explained(place: _Place, target: NDArray[np.float64], limit: float) -> tuple[tuple[Done, ...], float]:
    """The nearest damage, or two in the better order, and the distance that is left."""
    singles = [_best(place, target, damage, lambda done: (done,), FIRST) for damage in DAMAGES.values()]
    distance = float(np.linalg.norm(target))
    nearest = [_refined(place, target, damages, 0) for _, damages in _sorted(singles)[:NEAREST]]
    left, damages = _sorted(nearest)[0]
    if left > max(limit, WELL * distance):
        pairs = [
            _best(place, target, damage, order, PAIRED)
            for _, (first,) in nearest
            for damage in DAMAGES.values()
            if damage.name != first.name
            for order in (_before(first), _after(first))
        ]
        better = []
        for _, both in _sorted(pairs)[:NEAREST]:
            refined = both
            for index in (0, 1, 0, 1):
                _, refined = _refined(place, target, refined, index)
            better.append((place.distance(refined, target), refined))
        if _sorted(better)[0][0] < SECOND * left:
            left, damages = _sorted(better)[0]
    return damages, left


Fit = tuple[float, tuple[Done, ...]]  # a distance, and what leaves it


def _sorted(fits: Sequence[Fit]) -> list[Fit]:
    return sorted(fits, key=lambda fit: fit[0])


def _before(first: Done) -> Callable[[Done], tuple[Done, ...]]:
    return lambda done: (done, first)


def _after(first: Done) -> Callable[[Done], tuple[Done, ...]]:
    return lambda done: (first, done)


def _best(
    place: _Place, target: NDArray[np.float64], damage: Damage, within: Callable[[Done], tuple[Done, ...]], count: int
) -> Fit:
    """The best of the strengths that are tried first, on so many images."""
    tried = [within(Done(damage.name, strength)) for strength in damage.strengths]
    return _sorted([(place.distance(damages, target, count), damages) for damages in tried])[0]


def _refined(place: _Place, target: NDArray[np.float64], damages: tuple[Done, ...], index: int) -> Fit:
    """The damages with the strength of one of them refined, between the neighbours of what was tried."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    tried, done = damages[index].damage.strengths, damages[index]
    if len(tried) == 1:
        return place.distance(damages, target), damages
    below = max((s for s in tried if s < done.strength), default=done.strength)
    above = min((s for s in tried if s > done.strength), default=done.strength)

    def of(strength: float) -> tuple[Done, ...]:
        return (*damages[:index], Done(done.name, strength), *damages[index + 1 :])

    found = minimize_scalar(
        lambda strength: place.distance(of(strength), target),
        bounds=(below, above),
        method="bounded",
        options={"maxiter": REFINED},
    )
    return min((float(found.fun), of(float(found.x))), (place.distance(damages, target), damages), key=lambda f: f[0])


def sampled(images: Images, count: int) -> Images:
    """At most `count` of the images (N, 32, 32, 3), which may be memory-mapped, evenly spread."""
    return np.asarray(images[even_rows(len(images), count)])
