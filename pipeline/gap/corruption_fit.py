"""Find the corruption or preprocessing mistake that makes holdout images look like the test images.

Applies each known corruption to holdout images and names the one that brings their pixel statistics nearest to those
of the test images, if it explains most of the difference.  Images that are merely harder differ little in these
statistics, and not in the direction of any corruption.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruptions import KINDS, Corruption, Images, channel_means, greys
from pipeline.gap.estimators import TINY, Probabilities
from pipeline.gap.shift import label_shift
from pipeline.store.processed import even_rows

NAMES = (
    "red", "green", "blue", "red - blue", "contrast", "range", "colourfulness", "saturated", "edges", "noise",
    "roughness", "blocks of 8", "blocks of 2", "impulses", "sides alike", "rows against columns",
)  # fmt: skip
QUALITY = ("roughness", "blocks of 8", "blocks of 2", "impulses")  # the same for all natural images


def statistics(images: Images) -> NDArray[np.float64]:
    """Uint8 images (N, 32, 32, 3) -> (N, len(NAMES)), each in its own unit."""
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
    """Immerkaer's mask, which sees noise but not edges ("Fast noise variance estimation", 1996)."""
    across = light[:, :, 2:] - 2 * light[:, :, 1:-1] + light[:, :, :-2]
    return np.asarray(across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2])


def _excess(columns: NDArray[np.float32], rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Log ratio of the steps on the borders of `size`-pixel squares to the steps elsewhere."""
    border = np.arange(1, columns.shape[1] + 1) % size == 0
    on, off = (columns[:, where].mean(axis=1) + rows[:, where].mean(axis=1) for where in (border, ~border))
    return np.asarray(np.log((on + 1) / (off + 1)))


def _neighbours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the four neighbours; the border repeats itself."""
    wide = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return np.asarray((wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]) / 4)


SAMPLE = 600  # images of each set
FIRST = 200  # of these, for a first look at each corruption
PAIRED = 60  # and at each pair of corruptions
NOTICEABLE = 0.6  # distance below which two samples count as alike; 600 images of one set differ by .2 to .35
TIMES_CHANCE = 2.0  # or times the distance that chance gives samples of this size
EXPLAINED = 0.6  # corruptions that leave at most this share of the distance are named
WELL = 0.25  # one corruption that leaves less than this share ends the search
SECOND = 0.7  # two, or a mixture, must leave at most this share of what one leaves
NEAREST = 2  # single corruptions whose strength is refined, and with which pairs begin
REFINED = 8  # evaluations to refine a strength
FAR = 2.0  # times the limit: images count as corrupted even if no known corruption explains it
DEGRADED = 1.0  # deviations of one image: a corruption moves the mean of a quality statistic by as much
COMMON = 0.75  # share of the images from which one kind of corruption counts for all
LIKELIER = 0.25  # nats an image by which corrupted is likelier than clean; chance gives up to 0.1
RARE = 0.02  # kinds of corruption below this share of the images are not named


@dataclass(frozen=True)
class Fit:
    """What pixel statistics say about the test images."""

    distance: float  # of the test images from the holdout; 0.2 to 0.35 is chance
    corruptions: tuple[Corruption, ...]  # what explains it, in the order of application
    left: float  # the distance that they leave
    outstanding: tuple[tuple[str, float], ...]  # the statistics that differ most, in deviations of one image
    degraded: bool  # quality statistics differ more than natural images do
    limit: float = NOTICEABLE  # distance from which a difference counts
    shares: tuple[float, ...] = ()  # of a mixture: the share of the images with each corruption
    unexplained: float = 0.0  # of a mixture: the share of the images that fits none

    @property
    def far(self) -> bool:
        """Whether the distance means corruption even if no known corruption explains it."""
        return self.distance > FAR * self.limit

    @property
    def revert(self) -> Callable[[Images], Images] | None:
        """The function that restores the test images, if there is one."""
        return self.corruptions[0].kind.revert if len(self.corruptions) == 1 else None

    def apply(self, images: Images) -> Images:
        """Corrupt uint8 images (N, 32, 32, 3) in the same way; unexplained shares as the explained ones."""
        if not self.shares:
            return applied(self.corruptions, images)
        ends = np.cumsum(self.shares) / (1 - self.unexplained)
        own = np.searchsorted(ends, np.random.default_rng(0).random(len(images)))
        result = images.copy()
        for index in np.intersect1d(own, np.arange(len(self.corruptions))).tolist():
            result[own == index] = self.corruptions[index](images[own == index])
        return result

    def __str__(self) -> str:
        if not self.shares:
            words, share = ", then ".join(map(str, self.corruptions)), 1 - self.left / self.distance
            return f"{words}; accounts for {100 * share:.0f}% of the shift in pixel statistics"
        parts = by_kind(self.corruptions, self.shares)
        named = sorted(((share, name) for name, share in parts.items() if share >= RARE), reverse=True)
        rest = [(1 - self.unexplained - sum(self.shares), "clean"), (self.unexplained, "unexplained")]
        listed = ", ".join(f"{name} {100 * share:.0f}%" for share, name in named + rest)
        return f"each image has its own corruption: {listed}"


def by_kind(corruptions: Iterable[Corruption], shares: Iterable[float]) -> dict[str, float]:
    """The share of each kind of corruption, all strengths together."""
    kinds: dict[str, float] = {}
    for corruption, share in zip(corruptions, shares, strict=True):
        kinds[corruption.name] = kinds.get(corruption.name, 0.0) + share
    return kinds


def applied(corruptions: Iterable[Corruption], images: Images) -> Images:
    """The images after all corruptions, in order."""
    return functools.reduce(lambda images, corruption: corruption(images), corruptions, images)


def fit(labelled: Images, hidden: Images) -> Fit:
    """Compare even samples of uint8 images (N, 32, 32, 3); takes 1 to 5 seconds."""
    labelled, hidden = (np.asarray(images[even_rows(len(images), SAMPLE)]) for images in (labelled, hidden))
    search = _Search(labelled, hidden)
    away = np.sinh(search.target)
    outstanding = tuple((NAMES[k], float(away[k])) for k in np.argsort(-abs(search.target))[:3].tolist())
    limit = max(NOTICEABLE, TIMES_CHANCE * math.sqrt(len(NAMES) * (1 / len(labelled) + 1 / len(hidden))))
    unexplained = Fit(search.whole, (), search.whole, outstanding, degraded=False, limit=limit)
    if unexplained.distance <= limit:
        return unexplained
    degraded = unexplained.far and any(abs(away[NAMES.index(name)]) > DEGRADED for name in QUALITY)
    return search.explanation(replace(unexplained, degraded=degraded))


Candidate = tuple[float, tuple[Corruption, ...]]  # the distance that is left, and the corruptions in order
distance = itemgetter(0)


class _Search:
    """The search for the corruptions that bring holdout images nearest to the test images."""

    def __init__(self, labelled: Images, hidden: Images) -> None:
        self._plain, self._hidden = statistics(labelled), statistics(hidden)
        self._labelled, self._centre, self._scale = labelled, self._plain.mean(axis=0), self._plain.std(axis=0) + 1e-6
        self.target = self._position(self._hidden.mean(axis=0))
        self.whole = float(np.linalg.norm(self.target))  # distance of the test images from the holdout
        # The first of two corruptions is fixed while strengths of the second are tried.
        self._after = functools.lru_cache(maxsize=1)(self._corrupted)

    def _position(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Statistics in deviations, large ones dampened: if nearly all images have 0, any change is huge."""
        return np.asarray(np.arcsinh((values - self._centre) / self._scale))

    def _left(self, values: NDArray[np.float64]) -> float:
        """The distance of images with these statistics from the test images."""
        return float(np.linalg.norm(self._position(values.mean(axis=0)) - self.target))

    def _corrupted(self, corruptions: tuple[Corruption, ...], count: int) -> Images:
        return applied(corruptions, self._labelled[:: max(len(self._labelled) // count, 1)])

    def _tried(self, corruptions: tuple[Corruption, ...], count: int = SAMPLE) -> Candidate:
        """These corruptions, and the distance that they leave on `count` holdout images."""
        images = corruptions[-1](self._after(corruptions[:-1], count))
        return self._left(statistics(images)), corruptions

    def explanation(self, unexplained: Fit) -> Fit:
        """The nearest corruption; if it leaves much, a mixture or a pair in the better order."""
        tried = [Corruption(name, strength) for name, kind in KINDS.items() for strength in kind.strengths]
        seen = {each: statistics(self._corrupted((each,), FIRST)) for each in tried}
        mixed, gain = self._mixture(unexplained, seen)
        # If single images do not look corrupted, classes or contents differ, or all have the same mistake.
        names = [name for name, kind in KINDS.items() if kind.cause == "preprocessing" or gain > LIKELIER]
        left = {each: self._left(values) for each, values in seen.items()}
        singles = [min((each for each in tried if each.name == name), key=left.__getitem__) for name in names]
        firsts = [self._refined((each,), 0) for each in nsmallest(NEAREST, singles, left.__getitem__)]
        best = min(firsts, key=distance)
        if gain > LIKELIER and best[0] > max(unexplained.limit, WELL * self.whole):
            # A mistake affects all images: it stands unless a mixture explains more.
            if mixed is not None and (best[1][0].kind.cause == "corruption" or mixed.left < best[0]):
                return mixed
            second = self._pair([first for _, (first,) in firsts])
            best = second if second[0] < SECOND * best[0] else best
        if best[0] > EXPLAINED * self.whole:
            return unexplained
        return replace(unexplained, left=best[0], corruptions=best[1])

    def _mixture(self, unexplained: Fit, seen: Mapping[Corruption, NDArray[np.float64]]) -> tuple[Fit | None, float]:
        """A mixture, if no kind dominates; and how much likelier it is than clean images."""
        corruptions = tuple(each for each in seen if each.kind.cause == "corruption")
        components = [self._position(values) for values in (self._plain, *(seen[each] for each in corruptions))]
        hidden = self._position(self._hidden)
        shares, gain = mixture_shares(components, hidden)
        own, rest = tuple(shares[1:-1].tolist()), float(shares[-1])
        if max([rest, *by_kind(corruptions, own).values()]) > COMMON:
            return None, gain
        means = np.stack([component.mean(axis=0) for component in components]) - hidden.mean(axis=0)
        left = float(np.linalg.norm(np.average(means, axis=0, weights=shares[:-1])) / np.linalg.norm(means[0]))
        if left > EXPLAINED:
            return None, gain
        left *= self.whole
        return replace(unexplained, left=left, corruptions=corruptions, shares=own, unexplained=rest), gain

    def _pair(self, firsts: Sequence[Corruption]) -> Candidate:
        """The nearest pair that includes one of the `firsts`."""
        pairs = [
            min((self._tried((first, Corruption(name, at))[::step], PAIRED) for at in kind.strengths), key=distance)
            for first in firsts
            for name, kind in KINDS.items()
            if name != first.name and kind.cause == "corruption"
            for step in (-1, 1)  # before the first, and after it
        ]
        _, corruptions = min(pairs, key=distance)
        for index in (0, 1, 0, 1):
            _, corruptions = self._refined(corruptions, index, FIRST)
        return self._tried(corruptions)

    def _refined(self, corruptions: tuple[Corruption, ...], index: int, count: int = SAMPLE) -> Candidate:
        """The corruptions with the strength of one refined between the neighbours that were tried."""
        from scipy.optimize import minimize_scalar  # noqa: PLC0415

        one = corruptions[index]
        tried, before = one.kind.strengths, self._tried(corruptions, count)
        if len(tried) == 1:
            return before
        below = max((s for s in tried if s < one.strength), default=one.strength)
        above = min((s for s in tried if s > one.strength), default=one.strength)

        def at(strength: float) -> tuple[Corruption, ...]:
            return (*corruptions[:index], Corruption(one.name, strength), *corruptions[index + 1 :])

        optimum = minimize_scalar(
            lambda strength: self._tried(at(strength), count)[0], bounds=(below, above), method="bounded",
            options={"maxiter": REFINED},
        )  # fmt: skip
        return min((float(optimum.fun), at(float(optimum.x))), before, key=distance)


# --- a mixture: each image with a corruption of its own ----------------------------------------------------------
#
# That is a label shift with corruptions for classes.  A small classifier learns to tell the corruptions apart on
# holdout images, by pixel statistics.  The shares are those that make its outputs on the test images likeliest.  An
# extra class takes what no known corruption explains.

UNEXPLAINED = 1500  # examples of the extra class
WIDTH, STEPS, BATCH, PEAK_RATE, DECAY = 64, 400, 512, 0.03, 1e-3  # of the classifier; training takes a second
Statistics = NDArray[np.float64]  # (N, S), in deviations, large ones dampened


def mixture_shares(components: Sequence[Statistics], hidden: Statistics) -> tuple[NDArray[np.float64], float]:
    """The share of the `hidden` images that each component explains; the first component is clean images.

    Returns:
        Shares of sum 1, (components + 1,), the last for unexplained images; and the gain in an image's
        log-likelihood over all images being clean, in nats.
    """
    known, generator = np.concatenate(components), np.random.default_rng(0)
    # Half of the statistics of one image and half of another's: plausible values in impossible combinations.
    one, other = known[generator.integers(len(known), size=(2, UNEXPLAINED))]
    examples = [*components, np.where(generator.random(one.shape) < 0.5, one, other)]
    truth = np.repeat(np.arange(len(examples)), [len(each) for each in examples])
    outputs = _classifier(np.concatenate(examples), truth)
    of_examples, of_hidden = outputs(np.concatenate(examples)), outputs(hidden)
    found = label_shift(of_examples, truth, of_hidden)
    assumed = of_examples.mean(axis=0)
    likelihood = (of_hidden * (found.hidden / assumed)).sum(axis=1)
    gain = float(np.log(likelihood.clip(TINY)).mean() - np.log((of_hidden[:, 0] / assumed[0]).clip(TINY)).mean())
    return found.hidden, gain


def _classifier(examples: Statistics, truth: NDArray[np.integer]) -> Callable[[Statistics], Probabilities]:
    """A classifier of the examples with one hidden layer."""
    import torch  # noqa: PLC0415 - check and submit read stored results and start without it
    from torch import nn  # noqa: PLC0415

    centre, scale = examples.mean(axis=0), examples.std(axis=0) + 1e-6

    def ready(statistics: Statistics) -> torch.Tensor:
        return torch.from_numpy(((statistics - centre) / scale).astype(np.float32))

    inputs, labels = ready(examples), torch.from_numpy(truth.astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(inputs.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, int(truth.max()) + 1))
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
        for _ in range(STEPS):
            batch = torch.randint(len(inputs), (BATCH,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def outputs(statistics: Statistics) -> Probabilities:
        return np.asarray(network(ready(statistics)).double().softmax(dim=1).numpy())

    return outputs
