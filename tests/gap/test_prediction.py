"""The test images of a trained model: what it predicts, what is diagnosed, and what is done."""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from pipeline import train
from pipeline.errors import UsageError
from pipeline.gap import corruption_fit, diagnosis, estimators, prediction, shift
from pipeline.gap.corruptions import KINDS, Corruption, Images
from pipeline.gap.diagnosis import Diagnosis, Findings
from pipeline.gap.prediction import predict_hidden
from pipeline.store.manifest import Manifest, records
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import Adapt, Evidence
from pipeline.training import inference
from pipeline.training.device import Device
from pipeline.training.inference import Panel
from tests.gap.cases import BGR, SCRAMBLED
from tests.training.tiny import SLUG, write_tiny

TINT = np.array([1, 0.7, 0.4], dtype=np.float32)  # or red and blue would be alike, and their exchange no change
ARRAYS = ("train_images", "test_images", "hidden_images")
CHANGES: dict[str, Callable[[Images], Images]] = {
    "same": lambda images: images,
    "swapped": Corruption(BGR),
    "bright": Corruption("brightness", 60.0),
}


def change(folder: Path, **arrays: Images) -> None:
    """Put other arrays into a processed folder."""
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    facts = Processed.open(folder).manifest.facts
    Manifest("preprocess", records(folder, folder.glob("*.npy")), facts=facts).write(folder)


@pytest.fixture(scope="module", autouse=True)
def diagnosed_once() -> Iterator[None]:
    """A diagnosis takes seconds, and is the same of the same images."""
    known: dict[bytes, Diagnosis] = {}
    real = diagnosis.diagnose

    def diagnose(*seen: Any, **more: Any) -> Diagnosis:
        key = seen[1].tobytes()
        if key not in known:
            known[key] = real(*seen, **more)
        return known[key]

    kinds = {name: KINDS[name] for name in (BGR, SCRAMBLED, "brightness", "blur")}
    with (
        mock.patch.object(corruption_fit, "KINDS", kinds),
        mock.patch.object(prediction, "diagnose", diagnose),
        mock.patch.object(prediction, "SAMPLED", 60),  # fewer than there are
    ):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish images, and a run that has learned them."""
    root = tmp_path_factory.mktemp("trained")
    folder = write_tiny(root / "processed", train=500, test=300)
    change(folder, **{name: (np.load(folder / f"{name}.npy") * TINT).astype(np.uint8) for name in ARRAYS})
    options = ["--competition", SLUG, "--preset", "rehearsal", "--epochs", "4", "--processed", str(folder.parent)]
    assert train.main([*options, "--models", str(root / "models"), "--run", "r"]) == 0
    return root


@functools.cache
def predicted(root: Path, hidden: str, adapt: Adapt) -> tuple[Evidence, Findings, float]:
    """Predict the test images, changed or not; and how many of the labels are right."""
    folder = root / hidden / SLUG
    if not folder.exists():
        shutil.copytree(root / "processed" / SLUG, folder)
        change(folder, hidden_images=np.ascontiguousarray(CHANGES[hidden](np.load(folder / "hidden_images.npy"))))
    data = Processed.open(folder)
    run = Run.open(root / "models", "r")
    panel = Panel(inference.load([run], Device("cpu", "fp32")), "none", 100)
    truth = np.asarray(data.array("test_labels"))
    holdout = inference.predict(panel, data, "test_images", np.arange(len(truth)), truth)
    evidence, findings = predict_hidden(
        panel, data, adapt, lambda line: None, holdout=holdout, validation=None, recorded=run.result.test_accuracy / 100
    )
    return evidence, findings, float((evidence.hidden.labels == truth[::3]).mean())


def test_nothing_is_done_where_nothing_is_wrong(root: Path) -> None:
    _, findings, right = predicted(root, "same", "auto")
    assert (findings.diagnosis.verdict, findings.mitigation, findings.trials) == ("none", "none", ())
    assert findings.diagnosis.contract == pytest.approx(0, abs=1e-6) and right > 0.9


def test_swapped_channels_are_found_and_reverted(root: Path) -> None:
    _, plainly, before = predicted(root, "swapped", "none")
    evidence, findings, after = predicted(root, "swapped", "auto")
    clean = predicted(root, "same", "auto")[2]
    assert plainly.diagnosis.verdict == "preprocessing" and "BGR" in plainly.diagnosis.reason
    assert findings.mitigation == "revert" and before < clean - 0.2 and after == pytest.approx(clean)
    assert Findings.from_dict(evidence.findings) == findings
    (trial,) = [trial for trial in findings.trials if trial.mitigation == "revert"]
    assert (trial.before, trial.after) == pytest.approx((before, after), abs=0.1)


def test_batch_norm_adaptation_helps_against_a_corruption(root: Path) -> None:
    plainly, findings, before = predicted(root, "bright", "none")
    adapted, applied, after = predicted(root, "bright", "bn")
    assert findings.diagnosis.verdict == "corruption" and findings.mitigation == "none"
    assert applied.mitigation == "bn" and after > before
    assert not np.array_equal(adapted.hidden.probabilities, plainly.hidden.probabilities)


def test_what_was_not_found_cannot_be_reverted(root: Path) -> None:
    with pytest.raises(UsageError, match=r"--adapt revert: found nothing .*diagnosis none"):
        predicted(root, "same", "revert")


def test_the_prior_is_corrected_as_if_the_probabilities_were_calibrated(root: Path) -> None:
    plainly = predicted(root, "bright", "none")[0]
    temperature, holdout, hidden = estimators.calibrated(plainly.holdout, None, plainly.hidden)
    ratio = shift.label_shift(holdout, plainly.holdout.known_truth, hidden).ratio
    corrected = predicted(root, "bright", "prior")[0].hidden.probabilities.astype(np.float64)
    corrected = estimators.at_temperature(corrected, temperature)
    np.testing.assert_allclose(corrected, shift.reweighted(hidden, ratio), rtol=1e-3, atol=1e-6)
    assert abs(temperature - 1) > 0.05 and np.ptp(ratio) > 0.05  # or this would say nothing
