"""What is the matter with the hidden images: one word, its reason, and the size of every effect that was looked at.

The checks come in this order, and the first that finds something gives the verdict: the contract (the labelled images
through the very path of the submission), the pixels (mistakes and corruptions, pipeline.gap.corruption_fit), then the
answers and features (pipeline.gap.shift).  Fractions in 0..1, but for distances of pixel statistics.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.gap import corruption_fit, shift
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import DAMAGES, Done, Images
from pipeline.gap.estimators import Answers

Verdict = Literal["none", "preprocessing", "label_shift", "corruption", "natural", "unknown"]

KEPT = 0.002  # of accuracy that the submission's path may lose on labelled images: bfloat16 may move one label in 1,000
ROUNDED = 2.5  # labels: what it may move of a small set, however large a share that is
SMALL = 0.02  # one more in 50 images below some confidence: less is nothing, however significant it is
MOVED = 0.10  # share of images that change their class, from which classes are said to have shifted
MORE_THAN_CLASSES = 0.25  # of that share: a loss of confidence beyond it is no by-product of shifted classes
LOOKED_UP = 500  # images of each set whose nearest training image is looked for
RETIRED = ("softmax_ks", "reweighted_accuracy")  # in the evidence of older versions
APART = 0.80  # AUC from which the network's features of the two sets have little in common


@dataclass(frozen=True)
class Observed:
    """What a diagnosis is made from."""

    local: Answers  # calibrated, of the labelled test_batch
    truth: NDArray[np.integer]  # its labels, (N,)
    hidden: Answers  # calibrated
    local_rows: NDArray[np.int64]  # (m,): the local images whose features these are
    local_features: NDArray[np.float32]  # (m, F)
    hidden_features: NDArray[np.float32]  # (n, F)
    recorded: float | None = None  # the accuracy on the test_batch that training noted, if it is comparable

    @cached_property
    def classes(self) -> shift.Classes:
        """How often each class comes."""
        return shift.classes(self.local, self.truth, self.hidden)


@dataclass(frozen=True)
class Diagnosis:
    """The verdict and its grounds."""

    verdict: Verdict
    reason: str  # for people
    pixels: Found
    contract: float | None  # accuracy now, less the recorded one; None: they are not comparable
    auc: float  # of telling hidden from local features, the local ones weighted by class; .5: not at all
    harder: float  # how many more hidden than local images lie below one confidence, at most
    harder_limit: float  # what sampling alone may make of it
    label_distance: float  # total variation of the classes
    prior: tuple[float, ...]  # the estimated share of each class among the hidden images
    alike: tuple[float, float]  # the shares of hidden and of local images that nearly are a training image

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is of another version.
        """
        pixels = dict(values["pixels"])
        done = tuple(Done(**damage) for damage in pixels["damages"])
        if any(damage.name not in DAMAGES for damage in done):
            raise KeyError("an unknown damage")
        if values["verdict"] not in get_args(Verdict):
            raise ValueError(f"no verdict {values['verdict']!r}")
        outstanding = tuple((str(name), float(by)) for name, by in pixels["outstanding"])
        found = Found(**{**pixels, "damages": done, "outstanding": outstanding})
        tuples = {"prior": tuple(values["prior"]), "alike": tuple(values["alike"])}
        kept = {key: value for key, value in values.items() if key not in RETIRED}
        return cls(**{**kept, **tuples, "pixels": found})


def diagnose(
    seen: Observed, local: Images, hidden: Images, training: Images, names: Sequence[str]
) -> tuple[Diagnosis, NDArray[np.float64]]:
    """Look at everything; 10 to 40 seconds.

    Args:
        seen: the answers and features.
        local: labelled images (N, 32, 32, 3); only an even sample is looked at, as of the hidden ones.
        hidden: the hidden images, may be memory-mapped.
        training: the training images, may be memory-mapped.
        names: of the classes.

    Returns:
        The diagnosis, and how foreign each of the hidden images is whose features were seen, (n,).
    """
    found = seen.classes
    weights = found.weights(seen.truth)
    harder = shift.harder(seen.local, weights, seen.hidden)
    foreign = shift.foreign(seen.local_features, weights[seen.local_rows], seen.hidden_features)
    pixels = corruption_fit.find(local, hidden)
    right = seen.local.labels == seen.truth
    contract = None if seen.recorded is None else _contract(right, seen.recorded)
    samples = [corruption_fit.sampled(images, LOOKED_UP) for images in (hidden, local)]
    nearest = shift.nearest(np.concatenate(samples), training)
    alike = [part.mean() for part in np.split(nearest.alike, [len(samples[0])])]
    diagnosis = Diagnosis(
        verdict="unknown",
        reason="",
        pixels=pixels,
        contract=contract,
        auc=foreign.auc,
        harder=harder.share,
        harder_limit=harder.limit,
        label_distance=0.0 if found.by_chance else found.distance,
        prior=tuple(float(share) for share in found.hidden),
        alike=(float(alike[0]), float(alike[1])),
    )
    verdict, reason = conclude(diagnosis, found.local, names)
    return dataclasses.replace(diagnosis, verdict=verdict, reason=reason), foreign.scores


def _contract(right: NDArray[np.bool_], recorded: float) -> float:
    """The accuracy now, less the recorded one; a label or two that bfloat16 moves are nothing in a small set."""
    moved = float(right.mean()) - recorded
    return moved if abs(moved) * len(right) > ROUNDED else 0.0


def conclude(seen: Diagnosis, expected: NDArray[np.float64], names: Sequence[str]) -> tuple[Verdict, str]:
    """The verdict and its reason; `expected` are the shares of the classes, of these `names`, among local images."""
    for check in (_path, _pixels, _answers):
        if said := check(seen):
            return said
    if seen.label_distance > MOVED:
        change = np.array(seen.prior) - expected
        most = np.argsort(-abs(change))[:3]
        shifted = ", ".join(f"{names[k]} {100 * seen.prior[k]:.0f} % for {100 * expected[k]:.0f} %" for k in most)
        return "label_shift", f"classes come in other shares: {shifted}"
    if seen.auc > APART:
        return "unknown", f"the network sees other images (AUC {seen.auc:.2f}), and neither pixels nor answers say why"
    return "none", "no difference beyond sampling noise"


Outputs = tuple[Verdict, str] | None
Check = Callable[[Diagnosis], Outputs]


def _path(seen: Diagnosis) -> Outputs:
    if seen.contract is not None and abs(seen.contract) > KEPT:
        return "preprocessing", (
            f"on the labelled test_batch the network is {100 * seen.contract:+.2f} points off what training noted: "
            "this machine prepares or computes them differently"
        )
    return None


def _pixels(seen: Diagnosis) -> Outputs:
    pixels = seen.pixels
    if pixels.damages:
        kinds = {done.damage.kind for done in pixels.damages}
        words = ", then ".join(map(str, pixels.damages))
        explained = f"it explains {100 * (1 - pixels.left / pixels.distance):.0f} % of how the pixels differ"
        return ("preprocessing" if "preprocessing" in kinds else "corruption"), f"{words}; {explained}"
    if pixels.strange:
        differ = ", ".join(f"{name} {by:+.1f}" for name, by in pixels.outstanding)
        differs = f"pixels differ as no known damage would make them ({differ} deviations of an image)"
        return ("corruption", f"of an unknown kind: {differs}") if pixels.spoilt else ("unknown", differs)
    return None


def _answers(seen: Diagnosis) -> Outputs:
    if seen.harder > max(SMALL, seen.harder_limit, MORE_THAN_CLASSES * seen.label_distance):
        return "natural", (
            f"undamaged images that are harder: of {100 * seen.harder:.0f} % more of them than of labelled ones the "
            f"network is unsure (by chance up to {100 * seen.harder_limit:.0f} %), whatever their class"
        )
    return None
