"""The core of stage 4: predict the test set, diagnose its shift, try mitigations, and predict again if one gains.

    bn       batch-norm adaptation: take the statistics of the test images; against corruptions
    revert   undo a preprocessing mistake that has an inverse
    prior    correct the probabilities for the class frequencies; against label shift

A trial corrupts holdout images as the test images are corrupted, and applies the mitigation to those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.console import working
from pipeline.errors import Log, UsageError
from pipeline.gap import estimators, shift
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import COMPARING, MITIGATIONS, TRIED, Diagnosis, Findings, Trial, diagnose
from pipeline.gap.estimators import Labels, Probabilities
from pipeline.gap.shift import LabelShift, Weights
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Adapt, Evidence, Mitigation, Outputs, accuracy
from pipeline.training import inference
from pipeline.training.inference import Panel

COMPARED = 10_000  # test images in memory, from which the diagnosis samples
SAMPLED = 1000  # images of each set whose features are compared
LEAST = 4  # holdout images for a trial
ADAPTED = 2000  # test and holdout images whose statistics are compared


def predict_hidden(
    panel: Panel, data: Processed, adapt: Adapt, log: Log, *, holdout: Outputs, validation: Outputs | None,
    recorded: float | None,
) -> tuple[Evidence, Findings]:  # fmt: skip
    """Predict the test set, diagnose it, and mitigate as `adapt` says.

    The loop over the images is pipeline.training.inference.predict.

    Args:
        holdout, validation: the panel's outputs on the holdout and on the shared validation split.
        recorded: the holdout accuracy that training recorded, 0..1; None: not comparable.

    Raises:
        UsageError: `adapt` does not fit the diagnosis.
        BadData: a model's outputs are not finite.
    """
    hidden = inference.predict(panel, data, "hidden_images", np.arange(len(data.array("hidden_ids"))))
    rows, holdout_rows = even_rows(len(hidden), COMPARED), even_rows(len(holdout), SAMPLED)
    images, sample = data.rows("hidden_images", rows), even_rows(len(rows), SAMPLED)
    with working(f"{COMPARING} features"):
        features = inference.features(panel.members[0], images[sample])
        holdout_features = inference.features(panel.members[0], data.rows("test_images", holdout_rows))
    with working(f"{COMPARING} telling them apart"):
        temperature, calibrated, calibrated_hidden = estimators.calibrated(holdout, validation, hidden)
        classes = shift.label_shift(calibrated, holdout.known_truth, calibrated_hidden)
        weights = classes.weights(holdout.known_truth)
        auc, ood_scores = shift.out_of_distribution(holdout_features, weights[holdout_rows], features)
    diagnosis = diagnose(data, images, classes, calibrated, calibrated_hidden, auc=auc, recorded=recorded)
    with working("trying mitigations on the holdout"):
        simulation = simulated(panel, data, diagnosis, holdout, calibrated, classes)
    mitigation = choice(adapt, simulation.trials)
    if mitigation != "none":
        verdict = diagnosis.verdict.replace("_", " ")
        what = f"the test images differ from the holdout ({verdict})"
        log(f"predict: {what}; predicting again with {MITIGATIONS[mitigation]}")
        # Calibrated probabilities are p ** (1 / T), scaled: times the ratio there is times ratio ** T here.
        hidden = applied(mitigation, diagnosis, panel, data, hidden, images, classes.ratio**temperature)
    predicted = simulation.estimate(mitigation, hidden.probabilities.astype(np.float64))
    findings = Findings(diagnosis, simulation.trials, mitigation, predicted)
    return Evidence(
        runs=tuple(member.name for member in panel.members), hidden=hidden, holdout=holdout, validation=validation,
        hidden_rows=rows[sample], hidden_features=features, ood_scores=ood_scores.astype(np.float32),
        holdout_rows=holdout_rows, holdout_features=holdout_features, findings=findings.to_dict(),
    ), findings  # fmt: skip


# --- mitigations ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulation:
    """Holdout images shifted like the test set, and the panel's predictions for them."""

    trials: tuple[Trial, ...] = ()
    outputs: Mapping[Mitigation, Probabilities] = field(default_factory=dict)  # with each mitigation, (N, classes)
    exact: bool = True  # one corruption explains all images; False: several, whose strengths are guesses

    def estimate(self, mitigation: Mitigation, hidden: Probabilities) -> float | None:
        """The predicted accuracy of the `hidden` outputs with this mitigation; None if it was not simulated.

        A simulation is never quite right, and confidence shows in which direction: so atc, calibrated on the
        simulated images, estimates the test images.  An exact simulation's own accuracy counts for half.
        """
        if not self.trials:
            return None
        of = {trial.mitigation: trial.after for trial in self.trials} | {"none": self.trials[0].before}
        if mitigation not in self.outputs:
            return of.get(mitigation)
        estimate = estimators.atc(self.outputs[mitigation], of[mitigation], hidden)
        return (of[mitigation] + estimate) / 2 if self.exact else estimate


def simulated(
    panel: Panel, data: Processed, diagnosis: Diagnosis, holdout: Outputs, calibrated: Probabilities,
    classes: LabelShift,
) -> Simulation:  # fmt: skip
    """Try the mitigations that fit the diagnosis; `calibrated` are the holdout's probabilities."""
    if diagnosis.verdict == "label_shift":
        return Simulation((trial_of_prior(calibrated, holdout.known_truth, classes),))
    rows = even_rows(len(holdout), TRIED)
    return simulated_corruption(panel, diagnosis.pixels, data.rows("test_images", rows), holdout.known_truth[rows])


def simulated_corruption(panel: Panel, fit: Fit, images: Images, truth: Labels) -> Simulation:
    """Corrupt holdout images (N, 32, 32, 3) as `fit` says, and try the mitigations."""
    if not fit.corruptions or len(images) < LEAST:
        return Simulation()
    # The reference must not be the images that are corrupted: the test images are other images, too.
    half = len(images) // 2
    reference, plain, truth = images[:half], images[half:], truth[half:]
    corrupted = np.ascontiguousarray(fit.apply(plain))

    def right(outputs: Probabilities) -> float:
        return accuracy(outputs.argmax(axis=1), truth)

    def of(panel: Panel, images: Images) -> Probabilities:
        return panel.probabilities(images).astype(np.float64)

    outputs: dict[Mitigation, Probabilities] = {
        "none": of(panel, corrupted), "bn": of(panel.adapted(corrupted, reference), corrupted),
    }  # fmt: skip
    before = right(outputs["none"])
    side_effect = right(of(panel.adapted(plain, reference), plain)) - right(of(panel, plain))
    trials = [Trial("bn", before, right(outputs["bn"]), side_effect)]
    if fit.revert is not None:
        # On clean images it would do harm; but the pixels identify the mistake.
        outputs["revert"] = of(panel, np.ascontiguousarray(fit.revert(corrupted)))
        trials.append(Trial("revert", before, right(outputs["revert"]), 0.0))
    return Simulation(tuple(trials), outputs, exact=len(fit.corruptions) == 1)


def trial_of_prior(holdout: Probabilities, truth: Labels, classes: LabelShift) -> Trial:
    """Correct the holdout's probabilities, weighted to the class frequencies of the test set."""
    weights = classes.weights(truth)
    before, after = (
        float((weights * (probabilities.argmax(axis=1) == truth)).mean())
        for probabilities in (holdout, shift.reweighted(holdout, classes.ratio))
    )
    return Trial("prior", before, after, 0.0)


def choice(adapt: Adapt, trials: Sequence[Trial]) -> Mitigation:
    """The mitigation asked for; with "auto" the best that its trial recommends."""
    if adapt != "auto":
        return adapt
    recommended = [trial for trial in trials if trial.recommended]
    return max(recommended, key=lambda trial: trial.after).mitigation if recommended else "none"


def applied(
    mitigation: Mitigation, diagnosis: Diagnosis, panel: Panel, data: Processed, hidden: Outputs, images: Images,
    ratio: Weights,
) -> Outputs:  # fmt: skip
    """The outputs with the mitigation applied; UsageError if there is nothing to revert.

    `images` (n, 32, 32, 3) are a sample of the test set; `ratio` of the classes is for uncalibrated probabilities.
    """
    rows, revert = np.arange(len(hidden)), diagnosis.pixels.revert
    if mitigation == "prior":
        corrected = shift.reweighted(hidden.probabilities, ratio).astype(np.float32)
        return replace(hidden, probabilities=corrected)
    if mitigation == "bn":
        reference = data.rows("test_images", even_rows(len(data.array("test_images")), ADAPTED))
        adapted = panel.adapted(images[even_rows(len(images), ADAPTED)], reference)
        return inference.predict(adapted, data, "hidden_images", rows)
    if revert is None:
        raise UsageError(f"--adapt revert: found nothing to revert (diagnosis {diagnosis.verdict})")
    return inference.predict(panel, data, "hidden_images", rows, prepare=revert)
