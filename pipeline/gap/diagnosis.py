"""What shifted in the test set: a verdict, its reason, and the size of every effect.

The first check that finds something gives the verdict: the contract (the holdout through the path of the submission),
the pixels (pipeline.gap.corruption_fit), then probabilities and features (pipeline.gap.shift).  Fractions in 0..1,
except distances of pixel statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.console import working
from pipeline.errors import BadData
from pipeline.gap import corruption_fit, shift
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Images
from pipeline.gap.estimators import Probabilities
from pipeline.gap.shift import LabelShift
from pipeline.store.manifest import from_json
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Mitigation, Sidecar, accuracy

Verdict = Literal["none", "preprocessing", "label_shift", "corruption", "corruption (mixed)", "natural", "unknown"]

MITIGATIONS: Mapping[Mitigation, str] = {
    "bn": "batch-norm adaptation", "revert": "preprocessing fix", "prior": "class-prior correction",
}  # fmt: skip
COMPARING = "comparing the test set with the holdout:"  # and what of it
KEPT = 0.002  # accuracy that the submission's path may lose on the holdout: bfloat16 may change a label in 1,000
ROUNDED = 2.5  # labels that it may change in a small set
SMALL = 0.02  # one more in 50 images below some confidence: less does not matter, however significant
MOVED = 0.10  # total variation from which there is a label shift
MORE_THAN_CLASSES = 0.25  # of that: a larger loss of confidence is not explained by the label shift
TRIED = 3000  # holdout images for the trials of mitigations against corruptions: one half; the other is the reference
LOOKED_UP = 500  # images of each set whose nearest training image is searched
WORTH_IT = 0.005  # accuracy that a mitigation must gain in its trial
HARMLESS = 0.01  # accuracy that it may cost without a shift
FEATURES_APART = 0.80  # AUC from which the model's features of the two sets have little in common

KEYS = {  # fields -> their JSON keys
    "corruptions": "damages", "degraded": "spoilt", "mitigation": "measure", "side_effect": "unharmed",
}  # fmt: skip
FIELDS = {key: name for name, key in KEYS.items()}
RETIRED = ("softmax_ks", "reweighted_accuracy")  # JSON keys of older versions


@dataclass(frozen=True)
class Diagnosis:
    """The size of every effect, the verdict and its reason."""

    pixels: Fit
    contract: float | None  # holdout accuracy now minus the recorded one; None: not comparable
    auc: float  # of telling test from holdout features, the holdout weighted by class; .5: chance
    harder: float  # one-sided KS statistic of the confidence: excess of low-confidence test images
    harder_limit: float  # what sampling alone may give
    label_distance: float  # total variation of the classes
    prior: tuple[float, ...]  # estimated class frequencies of the test set
    alike: tuple[float, float]  # shares of test and holdout images that nearly duplicate a training image
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Trial:
    """Accuracies on holdout images shifted like the test set; 0..1."""

    mitigation: Mitigation
    before: float
    after: float
    side_effect: float  # signed change of accuracy on unshifted holdout images

    @property
    def recommended(self) -> bool:
        """Whether it gains, and does no harm without a shift."""
        return self.after - self.before > WORTH_IT and self.side_effect > -HARMLESS


@dataclass(frozen=True)
class Findings:
    """The diagnosis, the trials of mitigations, and the mitigation."""

    diagnosis: Diagnosis
    trials: tuple[Trial, ...]
    mitigation: Mitigation  # applied
    simulated: float | None = None  # simulated accuracy with it; 0..1

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self, dict_factory=lambda fields: {KEYS.get(name, name): v for name, v in fields})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; BadData if it is of another version."""
        try:
            findings: Self = from_json(cls, _today(stored))
        except (TypeError, ValueError) as error:
            raise BadData(f"the saved diagnosis is of another version ({error}): predict again with --force") from error
        return findings


def _today(stored: Any) -> Any:
    """The JSON values, with today's field names."""
    if isinstance(stored, (list, tuple)):
        return [_today(value) for value in stored]
    if not isinstance(stored, Mapping):
        return stored
    values = Sidecar.upgraded(dict(stored)).items()
    return {FIELDS.get(key, key): _today(value) for key, value in values if key not in RETIRED}


def diagnose(
    data: Processed, hidden_images: Images, classes: LabelShift, holdout: Probabilities, hidden: Probabilities, *,
    auc: float, recorded: float | None,
) -> Diagnosis:  # fmt: skip
    """Measure all effects; takes some seconds.

    Args:
        hidden_images: uint8 (n, 32, 32, 3), a sample or all.
        classes: the label shift between the two sets.
        holdout, hidden: calibrated probabilities of the holdout and the test set.
        auc: of telling the features of the two sets apart.
        recorded: the holdout accuracy that training recorded, if comparable.
    """
    images, truth = data.array("test_images"), np.asarray(data.array("test_labels"))
    less_confident, by_chance = shift.harder(holdout, classes.weights(truth), hidden)
    looked_up = [these[even_rows(len(these), LOOKED_UP)] for these in (hidden_images, images)]
    with working(f"{COMPARING} near duplicates"):
        _, correlations = shift.nearest(np.concatenate(looked_up), data.array("train_images"))
    alike = [float((part > shift.ALIKE).mean()) for part in np.split(correlations, [len(looked_up[0])])]
    moved = None if recorded is None else accuracy(holdout.argmax(axis=1), truth) - recorded
    with working(f"{COMPARING} pixels"):
        pixels = corruption_fit.fit(images, hidden_images)
    effects = Diagnosis(
        pixels=pixels,
        contract=0.0 if moved is not None and abs(moved) * len(truth) <= ROUNDED else moved,
        auc=auc,
        harder=less_confident,
        harder_limit=by_chance,
        label_distance=classes.distance,
        prior=tuple(float(share) for share in classes.hidden),
        alike=(alike[0], alike[1]),
        verdict="none",
        reason="",
    )
    verdict, reason = conclude(effects, classes.holdout, data.class_names)
    return replace(effects, verdict=verdict, reason=reason)


def conclude(seen: Diagnosis, expected: NDArray[np.float64], names: Sequence[str]) -> tuple[Verdict, str]:
    """The verdict and its reason; `expected` are the holdout's class frequencies, for these `names`."""
    pixels = seen.pixels
    if seen.contract is not None and abs(seen.contract) > KEPT:
        return "preprocessing", (
            f"the holdout accuracy is {100 * seen.contract:+.2f} points off training's: this machine "
            "prepares or computes images differently"
        )
    if pixels.corruptions:
        if pixels.shares:
            return "corruption (mixed)", str(pixels)
        causes = {corruption.kind.cause for corruption in pixels.corruptions}
        return ("preprocessing" if "preprocessing" in causes else "corruption"), str(pixels)
    if pixels.far:
        differ = ", ".join(f"{name} {by:+.1f}" for name, by in pixels.outstanding)
        differs = f"pixels differ as no known corruption would make them ({differ} deviations of an image)"
        return ("corruption", f"corruption of an unknown kind: {differs}") if pixels.degraded else ("unknown", differs)
    if seen.harder > max(SMALL, seen.harder_limit, MORE_THAN_CLASSES * seen.label_distance):
        return "natural", (
            f"uncorrupted images that are harder; {100 * seen.harder:.0f}% more low-confidence predictions than on "
            f"the holdout (chance: up to {100 * seen.harder_limit:.0f}%)"
        )
    if seen.label_distance > MOVED:
        change = np.array(seen.prior) - expected
        shifted = ", ".join(
            f"{names[k]} {100 * seen.prior[k]:.0f}% for {100 * expected[k]:.0f}%" for k in np.argsort(-abs(change))[:3]
        )
        return "label_shift", f"other class frequencies: {shifted}"
    if seen.auc > FEATURES_APART:
        return "unknown", f"the features differ (AUC {seen.auc:.2f}), and neither pixels nor probabilities say why"
    return "none", "no difference beyond sampling noise"
