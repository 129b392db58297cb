"""The hidden images predicted: the core of stage 4.

They are predicted, compared with the holdout and diagnosed; what may help against a shift is tried on labelled images,
and where `--adapt` has it so, they are predicted again.
"""

import dataclasses

import numpy as np

from pipeline.console import working
from pipeline.errors import Log
from pipeline.gap import estimators, shift
from pipeline.gap.adapt import applied, choice, simulated
from pipeline.gap.diagnosis import MITIGATIONS, Findings, diagnose
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Adapt, Evidence, Outputs
from pipeline.training import inference
from pipeline.training.inference import Panel

COMPARED = 10_000  # hidden images in memory, of which the diagnosis takes its samples
SAMPLED = 1000  # of these, and of the holdout, whose features are compared


def predict_hidden(
    panel: Panel, data: Processed, adapt: Adapt, log: Log, *, holdout: Outputs, validation: Outputs | None,
    recorded: float | None,
) -> tuple[Evidence, Findings]:  # fmt: skip
    """Predict the hidden images, diagnose them, and do what `adapt` says about it.

    The loop over the images is pipeline.training.inference.predict.

    Args:
        holdout: what the panel outputs on the test_batch; `validation`: on the split, if the models share one.
        recorded: the accuracy on the test_batch that training noted, 0..1; None: of other circumstances.

    Raises:
        UsageError: `adapt` is a mitigation of something that was not found.
        BadData: a model's outputs are not finite.
    """
    hidden = inference.predict(panel, data, "hidden_images", np.arange(len(data.array("hidden_ids"))))
    rows, holdout_rows = even_rows(len(hidden), COMPARED), even_rows(len(holdout), SAMPLED)
    images, sample = data.rows("hidden_images", rows), even_rows(len(rows), SAMPLED)
    with working("comparing the test set with the holdout: features"):
        features = inference.features(panel.members[0], images[sample])
        holdout_features = inference.features(panel.members[0], data.rows("test_images", holdout_rows))
        temperature, calibrated, calibrated_hidden = estimators.calibrated(holdout, validation, hidden)
        classes = shift.label_shift(calibrated, holdout.known_truth, calibrated_hidden)
        weights = classes.weights(holdout.known_truth)
        auc, ood_scores = shift.out_of_distribution(holdout_features, weights[holdout_rows], features)
    with working("comparing the test set with the holdout: pixels (10 to 40s)"):
        diagnosis = diagnose(data, images, classes, calibrated, calibrated_hidden, auc=auc, recorded=recorded)
    with working("trying mitigations on the holdout"):
        simulation = simulated(panel, data, diagnosis, holdout, calibrated, classes)
    findings = Findings(diagnosis, simulation.trials, choice(adapt, simulation.trials))
    if findings.mitigation != "none":
        verdict = diagnosis.verdict.replace("_", " ")
        log(f"predict: likely cause: {verdict}; predicting again with {MITIGATIONS[findings.mitigation]}")
        # Calibrated probabilities are p ** (1 / T), scaled: times the ratio there is times ratio ** T here.
        hidden = applied(findings, panel, data, hidden, images, classes.ratio**temperature)
    predicted = simulation.estimate(findings.mitigation, hidden.probabilities.astype(np.float64))
    findings = dataclasses.replace(findings, simulated=predicted)
    return Evidence(
        runs=tuple(member.name for member in panel.members), hidden=hidden, holdout=holdout, validation=validation,
        hidden_rows=rows[sample], hidden_features=features, ood_scores=ood_scores.astype(np.float32),
        holdout_rows=holdout_rows, holdout_features=holdout_features, findings=findings.to_dict(),
    ), findings  # fmt: skip
