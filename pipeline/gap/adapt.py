"""Mitigations of a shift without training: tried on labelled images first, and chosen by what they gain there.

    bn       batch normalisations take the statistics of the hidden images: against corruptions
    revert   the hidden images are turned back: against mistakes of preprocessing that have an inverse
    prior    probabilities are corrected for how often each class comes: against label shift

A trial corrupts labelled images as the hidden ones are corrupted, and applies the mitigation to those.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Log, UsageError
from pipeline.gap import diagnosis, estimators, shift
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import Findings, Trial
from pipeline.gap.estimators import Labels, Probabilities
from pipeline.gap.shift import LabelShift, Weights
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Adapt, Evidence, Mitigation, Outputs
from pipeline.training import inference
from pipeline.training.inference import Panel

LEAST = 4  # labelled images for a trial
SAMPLED = 1000  # hidden and labelled images whose features are compared
COMPARED = 10_000  # hidden images in memory, of which the diagnosis takes its samples
TRIED = 3000  # labelled images on which mitigations are tried
ADAPTED = 2000  # hidden and labelled images whose statistics are compared


def predict_hidden(
    panel: Panel, data: Processed, adapt: Adapt, log: Log, *, test: Outputs, validation: Outputs | None,
    recorded: float | None,
) -> tuple[Evidence, Findings]:  # fmt: skip
    """Predict the hidden images, diagnose them, and do what `adapt` says about it.

    Args:
        test: what the panel outputs on the test_batch; `validation`: on the split, if the models share one.
        recorded: the accuracy on the test_batch that training noted, 0..1; None: of other circumstances.

    Returns:
        The evidence, which lacks only the CSV's sha256, and what was found.

    Raises:
        UsageError: `adapt` is a mitigation of something that was not found.
        BadData: a model's outputs are not finite.
    """
    hidden = inference.predict(panel, data, "hidden_images", np.arange(len(data.array("hidden_ids"))))
    log("predict: comparing the hidden images with the labelled ones")
    rows = even_rows(len(hidden), COMPARED)
    images = data.rows("hidden_images", rows)
    evidence = _evidence(panel, data, rows, images, hidden, test, validation)
    temperature, holdout, calibrated = estimators.calibrated(test, validation, hidden)
    classes = shift.label_shift(holdout, test.known_truth, calibrated)
    found, ood_scores = diagnosis.diagnose(evidence, data, images, classes, holdout, calibrated, recorded)
    if found.verdict == "label_shift":
        trials = [trial_of_prior(holdout, test.known_truth, classes)]
    else:
        tried = even_rows(len(test), TRIED)
        trials = trials_of_corruption(panel, found.pixels, data.rows("test_images", tried), test.known_truth[tried])
    findings = Findings(found, tuple(trials), choice(adapt, trials))
    if findings.mitigation != "none":
        log(f"predict: diagnosis {found.verdict}, so answering again with --adapt {findings.mitigation}")
        hidden = _applied(findings, panel, data, hidden, images, classes.ratio**temperature)
    return dataclasses.replace(
        evidence, hidden=hidden, ood_scores=ood_scores.astype(np.float32), diagnosis=findings.to_dict()
    ), findings


def _evidence(
    panel: Panel, data: Processed, rows: NDArray[np.int64], images: Images, hidden: Outputs, test: Outputs,
    validation: Outputs | None,
) -> Evidence:  # fmt: skip
    """The outputs, and features of samples of both sets; `images` are the hidden ones of the `rows`."""
    sample, test_rows = even_rows(len(rows), SAMPLED), even_rows(len(test), SAMPLED)
    features, test_features = (
        inference.features(panel.members[0], these) for these in (images[sample], data.rows("test_images", test_rows))
    )
    return Evidence(
        csv_sha256="", runs=tuple(member.name for member in panel.members), hidden=hidden, test=test,
        validation=validation, hidden_rows=rows[sample], hidden_features=features, ood_scores=np.empty(0, np.float32),
        test_rows=test_rows, test_features=test_features, diagnosis={},
    )  # fmt: skip


def _applied(
    findings: Findings, panel: Panel, data: Processed, hidden: Outputs, images: Images, ratio: Weights
) -> Outputs:
    """The outputs with the mitigation applied; `ratio` is of classes, for probabilities that are not calibrated."""
    found, rows = findings.diagnosis, np.arange(len(hidden))
    if findings.mitigation == "prior":
        corrected = shift.reweighted(hidden.probabilities, ratio).astype(np.float32)
        return dataclasses.replace(hidden, probabilities=corrected)
    if findings.mitigation == "bn":
        reference = data.rows("test_images", even_rows(len(data.array("test_images")), ADAPTED))
        adapted = panel.adapted(images[even_rows(len(images), ADAPTED)], reference)
        return inference.predict(adapted, data, "hidden_images", rows)
    if found.pixels.revert is None:
        raise UsageError(f"--adapt revert: nothing was found that can be undone (diagnosis {found.verdict})")
    return inference.predict(panel, data, "hidden_images", rows, prepare=found.pixels.revert)


def trials_of_corruption(panel: Panel, fit: Fit, images: Images, truth: Labels) -> list[Trial]:
    """Corrupt labelled images (N, 32, 32, 3) as was found, and try the mitigations."""
    if not fit.corruptions or len(images) < LEAST:
        return []
    # The reference must be other images than those that are corrupted, as the hidden ones are other images.
    half = len(images) // 2
    reference, plain, truth = images[:half], images[half:], truth[half:]
    corrupted = np.ascontiguousarray(fit.apply(plain))

    def accuracy(panel: Panel, of: Images) -> float:
        return estimators.accuracy(panel.probabilities(of), truth)

    unharmed, before = accuracy(panel, plain), accuracy(panel, corrupted)
    after, needless = (accuracy(panel.adapted(these, reference), these) for these in (corrupted, plain))
    trials = [Trial("bn", before, after, needless - unharmed)]
    if fit.revert is not None:
        # Where nothing is wrong it would do harm; but the mistake was recognised by its very pixels.
        reverted = np.ascontiguousarray(fit.revert(corrupted))
        trials.append(Trial("revert", before, accuracy(panel, reverted), 0.0))
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
