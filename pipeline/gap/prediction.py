"""The core of stage 4: predict the test set, diagnose its shift, try mitigations, and predict again if one gains."""

import numpy as np

from pipeline.console import working
from pipeline.errors import Log
from pipeline.gap import estimators, shift
from pipeline.gap.adapt import applied, choice, simulated
from pipeline.gap.diagnosis import COMPARING, MITIGATIONS, Findings, diagnose
from pipeline.store.processed import Processed, even_rows
from pipeline.store.submissions import Adapt, Evidence, Outputs
from pipeline.training import inference
from pipeline.training.inference import Panel

COMPARED = 10_000  # test images in memory, from which the diagnosis samples
SAMPLED = 1000  # images of each set whose features are compared


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
