"""Mitigations of a shift without training: tried on labelled images first, and chosen by what they gain there.

    bn       batch normalisations take the statistics of the hidden images: against corruptions
    revert   the hidden images are turned back: against mistakes of preprocessing that have an inverse
    prior    probabilities are corrected for how often each class comes: against label shift

A trial corrupts labelled images as the hidden ones are corrupted, and applies the mitigation to those.
What tries and applies them is pipeline.gap.prediction.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.errors import UsageError
from pipeline.gap import shift
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import Diagnosis, Findings, Trial
from pipeline.gap.estimators import Labels, Probabilities
from pipeline.gap.shift import LabelShift, Weights
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Adapt, Mitigation, Outputs, accuracy
from pipeline.training import inference
from pipeline.training.inference import Panel

LEAST = 4  # labelled images for a trial
TRIED = 3000  # labelled images on which mitigations are tried
ADAPTED = 2000  # hidden and labelled images whose statistics are compared


def tried(
    panel: Panel, data: Processed, diagnosis: Diagnosis, holdout: Outputs, calibrated: Probabilities,
    classes: LabelShift,
) -> list[Trial]:  # fmt: skip
    """Try what may help against what was diagnosed; `calibrated` are the holdout's probabilities."""
    if diagnosis.verdict == "label_shift":
        return [trial_of_prior(calibrated, holdout.known_truth, classes)]
    rows = even_rows(len(holdout), TRIED)
    return trials_of_corruption(panel, diagnosis.pixels, data.rows("test_images", rows), holdout.known_truth[rows])


def trials_of_corruption(panel: Panel, fit: Fit, images: Images, truth: Labels) -> list[Trial]:
    """Corrupt labelled images (N, 32, 32, 3) as `fit` says, and try the mitigations."""
    if not fit.corruptions or len(images) < LEAST:
        return []
    # The reference must be other images than those that are corrupted, as the hidden ones are other images.
    half = len(images) // 2
    reference, plain, truth = images[:half], images[half:], truth[half:]
    corrupted = np.ascontiguousarray(fit.apply(plain))

    def right(panel: Panel, of: Images) -> float:
        return accuracy(panel.probabilities(of).argmax(axis=1), truth)

    before, after = right(panel, corrupted), right(panel.adapted(corrupted, reference), corrupted)
    side_effect = right(panel.adapted(plain, reference), plain) - right(panel, plain)
    trials = [Trial("bn", before, after, side_effect)]
    if fit.revert is not None:
        # Where nothing is wrong it would do harm; but the mistake was recognised by its very pixels.
        reverted = np.ascontiguousarray(fit.revert(corrupted))
        trials.append(Trial("revert", before, right(panel, reverted), 0.0))
    return trials


def trial_of_prior(holdout: Probabilities, truth: Labels, classes: LabelShift) -> Trial:
    """Correct the holdout's probabilities, weighted so that their classes come as often as the hidden ones'."""
    weights = classes.weights(truth)
    before, after = (
        float((weights * (probabilities.argmax(axis=1) == truth)).mean())
        for probabilities in (holdout, shift.reweighted(holdout, classes.ratio))
    )
    return Trial("prior", before, after, 0.0)


def choice(adapt: Adapt, trials: Sequence[Trial]) -> Mitigation:
    """What was asked for; with "auto" the best of what its trial recommends."""
    if adapt != "auto":
        return adapt
    recommended = [trial for trial in trials if trial.recommended]
    return max(recommended, key=lambda trial: trial.after).mitigation if recommended else "none"


def applied(
    findings: Findings, panel: Panel, data: Processed, hidden: Outputs, images: Images, ratio: Weights
) -> Outputs:
    """The outputs with the mitigation applied; UsageError if nothing was found that can be reverted.

    The batch norms take the statistics of the hidden `images` (n, 32, 32, 3); `ratio` is of the classes, for the
    probabilities as they are in `hidden`: not calibrated.
    """
    rows, revert = np.arange(len(hidden)), findings.diagnosis.pixels.revert
    if findings.mitigation == "prior":
        corrected = shift.reweighted(hidden.probabilities, ratio).astype(np.float32)
        return dataclasses.replace(hidden, probabilities=corrected)
    if findings.mitigation == "bn":
        reference = data.rows("test_images", even_rows(len(data.array("test_images")), ADAPTED))
        adapted = panel.adapted(images[even_rows(len(images), ADAPTED)], reference)
        return inference.predict(adapted, data, "hidden_images", rows)
    if revert is None:
        verdict = findings.diagnosis.verdict
        raise UsageError(f"--adapt revert: nothing was found that can be undone (diagnosis {verdict})")
    return inference.predict(panel, data, "hidden_images", rows, prepare=revert)
