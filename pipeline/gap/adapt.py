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

from pipeline.config import IMAGE_SIZE
from pipeline.errors import Log, UsageError
from pipeline.gap import diagnosis, estimators, shift
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import Diagnosis, Findings, Trial
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


class Sample:
    """Hidden images that stay in memory while all are read once, batch by batch and in order."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = rows  # (n,), ascending
        self.images = np.empty((len(rows), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        self._read = 0

    def taken_from(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Keep what is to be kept of the next images, and return them all."""
        first, last = np.searchsorted(self.rows, (self._read, self._read + len(batch)))
        self.images[first:last] = batch[self.rows[first:last] - self._read]
        self._read += len(batch)
        return batch

    def thinned(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """At most `count` of them, evenly spread, and their rows."""
        places = even_rows(len(self.rows), count)
        return self.rows[places], self.images[places]


def predict_hidden(
    panel: Panel, data: Processed, adapt: Adapt, log: Log, *, test: Outputs, validation: Outputs | None,
    recorded: float | None,
) -> tuple[Evidence, Findings]:  # fmt: skip
    """Predict the hidden images, diagnose them, and do what `adapt` says about it.

    Args:
        panel: the models.
        data: the images.
        adapt: the mitigation, or "auto" for the best of what its trial recommends.
        log: is told of the mitigation.
        test: what the panel outputs on the test_batch.
        validation: and on the validation split, if the models share one.
        recorded: the accuracy on the test_batch that training noted, 0..1; None: of other circumstances.

    Returns:
        The evidence, which lacks only the CSV's sha256, and what was found.

    Raises:
        UsageError: `adapt` is a mitigation of something that was not found.
        BadData: a model's outputs are not finite.
    """
    rows = np.arange(len(data.array("hidden_ids")))
    sample = Sample(even_rows(len(rows), COMPARED))
    hidden = inference.predict(panel, data, "hidden_images", rows, prepare=sample.taken_from)
    hidden_rows, hidden_images = sample.thinned(SAMPLED)
    test_rows = even_rows(len(test), SAMPLED)
    hidden_features, test_features = (
        inference.features(panel.members[0], images) for images in (hidden_images, data.rows("test_images", test_rows))
    )
    log("predict: comparing the hidden images with the labelled ones")
    temperature, holdout, calibrated = estimators.calibrated(test, validation, hidden)
    truth = test.known_truth
    classes = shift.label_shift(holdout, truth, calibrated)
    found, ood_scores = diagnosis.diagnose(
        holdout=holdout, truth=truth, hidden=calibrated, classes=classes, holdout_rows=test_rows,
        holdout_features=test_features, hidden_features=hidden_features, holdout_images=data.array("test_images"),
        hidden_images=sample.images, training_images=data.array("train_images"),
        recorded=recorded, names=data.class_names,
    )  # fmt: skip
    if found.verdict == "label_shift":
        trials = [trial_of_prior(holdout, truth, classes)]
    else:
        tried = even_rows(len(truth), TRIED)
        trials = trials_of_corruption(panel, found.pixels, data.rows("test_images", tried), truth[tried])
    mitigation = choice(adapt, trials)
    if mitigation != "none":
        log(f"predict: diagnosis {found.verdict}, so answering again with --adapt {mitigation}")
        hidden = _applied(mitigation, panel, data, found, hidden, sample, classes.ratio**temperature)
    findings = Findings(found, tuple(trials), mitigation)
    evidence = Evidence(
        csv_sha256="", runs=tuple(member.name for member in panel.members), hidden=hidden, test=test,
        validation=validation, hidden_rows=hidden_rows, hidden_features=hidden_features,
        ood_scores=ood_scores.astype(np.float32), test_rows=test_rows, test_features=test_features,
        diagnosis=findings.to_dict(),
    )  # fmt: skip
    return evidence, findings


def _applied(
    mitigation: Mitigation, panel: Panel, data: Processed, found: Diagnosis, hidden: Outputs, sample: Sample,
    ratio: Weights,
) -> Outputs:  # fmt: skip
    """The outputs with the mitigation applied; `ratio` is of classes, for probabilities that are not calibrated."""
    if mitigation == "prior":
        corrected = shift.reweighted(hidden.probabilities, ratio).astype(np.float32)
        return dataclasses.replace(hidden, probabilities=corrected)
    rows = np.arange(len(hidden))
    if mitigation == "bn":
        _, images = sample.thinned(ADAPTED)
        reference = data.rows("test_images", even_rows(len(data.array("test_images")), ADAPTED))
        adapted = panel.adapted(images, reference)
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
