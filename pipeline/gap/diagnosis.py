"""What is wrong with the hidden images: one word, its reason, and the size of every effect that was looked at.

The checks come in this order, and the first that finds something gives the verdict: the contract (the labelled images
through the path of the submission), the pixels (mistakes and corruptions, pipeline.gap.corruption_fit), then the
probabilities and features (pipeline.gap.shift).  Fractions in 0..1, but for distances of pixel statistics.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.gap import corruption_fit, shift
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Images
from pipeline.gap.estimators import Probabilities
from pipeline.gap.shift import LabelShift
from pipeline.store.manifest import from_json
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Mitigation, accuracy, with_present_names

Verdict = Literal["none", "preprocessing", "label_shift", "corruption", "corruption (mixed)", "natural", "unknown"]

MITIGATIONS: Mapping[Mitigation, str] = {
    "bn": "batch-norm adaptation", "revert": "preprocessing fix", "prior": "class-prior correction",
}  # fmt: skip
KEPT = 0.002  # of accuracy that the submission's path may lose on labelled images: bfloat16 may move one label in 1,000
ROUNDED = 2.5  # labels: what it may move of a small set, however large a share that is
SMALL = 0.02  # one more in 50 images below some confidence: less is nothing, however significant it is
MOVED = 0.10  # share of images that change their class, from which there is a label shift
MORE_THAN_CLASSES = 0.25  # of that share: a loss of confidence beyond it is no by-product of the label shift
LOOKED_UP = 500  # images of each set whose nearest training image is looked for
WORTH_IT = 0.005  # of accuracy that a mitigation must gain in its trial
HARMLESS = 0.01  # of accuracy that it may cost where nothing is wrong
FEATURES_APART = 0.80  # AUC from which the model's features of the two sets have little in common

KEYS = {  # fields -> their JSON keys
    "corruptions": "damages", "degraded": "spoilt", "mitigation": "measure", "side_effect": "unharmed",
}  # fmt: skip
FIELDS = {key: name for name, key in KEYS.items()}
RETIRED = ("softmax_ks", "reweighted_accuracy")  # JSON keys of older versions


@dataclass(frozen=True)
class Effects:
    """The size of every effect that was looked at."""

    pixels: Fit
    contract: float | None  # accuracy now, less the recorded one; None: they are not comparable
    auc: float  # of telling hidden from holdout features, the holdout weighted by class; .5: not at all
    harder: float  # how many more hidden than holdout images lie below one confidence, at most
    harder_limit: float  # what sampling alone may make of it
    label_distance: float  # total variation of the classes
    prior: tuple[float, ...]  # the estimated share of each class among the hidden images
    alike: tuple[float, float]  # the shares of hidden and of holdout images that nearly are a training image


@dataclass(frozen=True)
class Diagnosis(Effects):
    """The verdict and its grounds."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Trial:
    """Accuracies on labelled images that were corrupted, or weighted, like the hidden ones; 0..1."""

    mitigation: Mitigation
    before: float
    after: float
    side_effect: float  # the change of accuracy, with its sign, on labelled images as they are

    @property
    def recommended(self) -> bool:
        """Whether it gains, and does no harm where nothing is wrong."""
        return self.after - self.before > WORTH_IT and self.side_effect > -HARMLESS


@dataclass(frozen=True)
class Findings:
    """What is wrong with the hidden images, what was tried against it, and what was done."""

    diagnosis: Diagnosis
    trials: tuple[Trial, ...]
    mitigation: Mitigation  # that was applied
    simulated: float | None = None  # the accuracy with it, by labelled images made like the hidden ones; 0..1

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self, dict_factory=lambda fields: {KEYS.get(name, name): v for name, v in fields})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            BadData: it is of another version.
        """
        try:
            findings: Self = from_json(cls, _today(stored))
        except (TypeError, ValueError) as error:
            raise BadData(f"the evidence is of another version ({error}): predict again with --force") from error
        return findings


def _today(stored: Any) -> Any:
    """The JSON values, with the names of today's fields."""
    if isinstance(stored, (list, tuple)):
        return [_today(value) for value in stored]
    if not isinstance(stored, Mapping):
        return stored
    values = with_present_names(stored).items()
    return {FIELDS.get(key, key): _today(value) for key, value in values if key not in RETIRED}


def diagnose(
    data: Processed, hidden_images: Images, classes: LabelShift, holdout: Probabilities, hidden: Probabilities, *,
    auc: float, recorded: float | None,
) -> Diagnosis:  # fmt: skip
    """Look at everything; 10 to 40 seconds.

    Args:
        hidden_images: uint8 (n, 32, 32, 3), a sample or all.
        classes: the label shift between the two sets.
        holdout: calibrated, of the labelled test_batch; `hidden`: of the hidden images, likewise.
        auc: of telling the features of the two sets apart.
        recorded: the accuracy on the holdout that training noted, if it is comparable.
    """
    images, truth = data.array("test_images"), np.asarray(data.array("test_labels"))
    less_confident, by_chance = shift.harder(holdout, classes.weights(truth), hidden)
    looked_up = [these[even_rows(len(these), LOOKED_UP)] for these in (hidden_images, images)]
    _, correlations = shift.nearest(np.concatenate(looked_up), data.array("train_images"))
    alike = [float((part > shift.ALIKE).mean()) for part in np.split(correlations, [len(looked_up[0])])]
    moved = None if recorded is None else accuracy(holdout.argmax(axis=1), truth) - recorded
    effects = Effects(
        pixels=corruption_fit.fit(images, hidden_images),
        contract=0.0 if moved is not None and abs(moved) * len(truth) <= ROUNDED else moved,
        auc=auc,
        harder=less_confident,
        harder_limit=by_chance,
        label_distance=classes.distance,
        prior=tuple(float(share) for share in classes.hidden),
        alike=(alike[0], alike[1]),
    )
    verdict, reason = conclude(effects, classes.holdout, data.class_names)
    return Diagnosis(**vars(effects), verdict=verdict, reason=reason)


def conclude(seen: Effects, expected: NDArray[np.float64], names: Sequence[str]) -> tuple[Verdict, str]:
    """The verdict and its reason; `expected` are the shares of the classes, of these `names`, in the holdout."""
    pixels = seen.pixels
    if seen.contract is not None and abs(seen.contract) > KEPT:
        return "preprocessing", (
            f"on the labelled test_batch the network is {100 * seen.contract:+.2f} points off what training noted: "
            "this machine prepares or computes them differently"
        )
    if pixels.corruptions:
        if pixels.shares:
            return "corruption (mixed)", str(pixels)
        causes = {corruption.kind.cause for corruption in pixels.corruptions}
        return ("preprocessing" if "preprocessing" in causes else "corruption"), str(pixels)
    if pixels.far:
        differ = ", ".join(f"{name} {by:+.1f}" for name, by in pixels.outstanding)
        differs = f"pixels differ as no known corruption would make them ({differ} deviations of an image)"
        return ("corruption", f"of an unknown kind: {differs}") if pixels.degraded else ("unknown", differs)
    if seen.harder > max(SMALL, seen.harder_limit, MORE_THAN_CLASSES * seen.label_distance):
        return "natural", (
            f"uncorrupted images that are harder; of {100 * seen.harder:.0f} % more of them than of labelled ones the "
            f"network is unsure (by chance up to {100 * seen.harder_limit:.0f} %), whatever their class"
        )
    if seen.label_distance > MOVED:
        change = np.array(seen.prior) - expected
        shifted = ", ".join(
            f"{names[k]} {100 * seen.prior[k]:.0f} % for {100 * expected[k]:.0f} %"
            for k in np.argsort(-abs(change))[:3]
        )
        return "label_shift", f"classes come in other shares: {shifted}"
    if seen.auc > FEATURES_APART:
        return "unknown", f"the network sees other images (AUC {seen.auc:.2f}), and neither pixels nor outputs say why"
    return "none", "no difference beyond sampling noise"
