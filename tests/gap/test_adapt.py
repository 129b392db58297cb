"""Mitigations on models so simple that their outputs can be predicted, and on a trained one."""

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import train
from pipeline.errors import UsageError
from pipeline.gap import corruption_fit, diagnosis
from pipeline.gap.adapt import choice, predict_hidden, trial_of_prior, trials_of_corruption
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import KINDS, Corruption, Images
from pipeline.gap.diagnosis import Diagnosis, Findings, Trial
from pipeline.gap.shift import LabelShift
from pipeline.store.manifest import Manifest, records
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import Adapt, Evidence, Mitigation
from pipeline.training import inference
from pipeline.training.device import Device
from pipeline.training.inference import Panel
from tests.gap.cases import ALIKE, BGR, SCRAMBLED, SWAPPED, two
from tests.training.tiny import SLUG, write_tiny


def darkened(by: float) -> Fit:
    return Fit(2.0, (Corruption("brightness", -by),), 0.2, (), False)


def plain(*colours: tuple[int, int, int]) -> Images:
    """Images of one colour each."""
    return np.broadcast_to(np.array(colours, dtype=np.uint8)[:, None, None], (len(colours), 32, 32, 3)).copy()


def greys(*values: int) -> Images:
    return plain(*[(value, value, value) for value in values])


@dataclass(frozen=True)
class Colour:
    """Says which channel is brightest, whatever the statistics."""

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        assert images.flags.c_contiguous  # torch takes no negative strides
        means = images.mean(axis=(1, 2), dtype=np.float32)
        return np.asarray(means / means.sum(axis=1, keepdims=True), dtype=np.float32)

    def adapted(self, images: Images, reference: Images) -> "Colour":
        return self


@dataclass(frozen=True)
class Light:
    """Says 1 of what is lighter than `centre`, which moves as the mean does."""

    centre: float

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        lighter = images.mean(axis=(1, 2, 3)) > self.centre
        return np.asarray(np.eye(2)[lighter.astype(int)], dtype=np.float32)

    def adapted(self, images: Images, reference: Images) -> "Light":
        return Light(self.centre + float(images.mean() - reference.mean()))


RGB = plain((200, 50, 10), (20, 200, 90), (10, 50, 200), (200, 100, 10))
FOGGED = Fit(3.0, (Corruption("fog", 0.5), Corruption("brightness", -50.0)), 0.2, (), False)


@pytest.mark.parametrize(
    ("panel", "fit", "reference", "images", "truth", "trials"),
    [
        # Without a corruption or enough images there is nothing to try
        (Colour(), ALIKE, greys(1, 2), greys(3, 4), (0, 0), []),
        (Colour(), SWAPPED, greys(1), greys(2), (0,), []),
        # The last is mislabelled: red for a 2, which the swap makes right by luck
        (Colour(), SWAPPED, RGB, RGB, (0, 1, 2, 2), [Trial("bn", 0.5, 0.5, 0.0), Trial("revert", 0.5, 0.75, 0.0)]),
        # Both of mean 130: batch norms follow the light
        (Light(128), darkened(60), greys(10, 130, 130, 250), greys(90, 110, 150, 170), (0, 0, 1, 1),
         [Trial("bn", 0.5, 1.0, 0.0)]),
        # The reference is darker by 96 than clean images are, and lighter by 19 than corrupted ones: 0, 0, 5 and 120
        (Light(128), darkened(130), greys(50, 50, 50, 50), greys(100, 100, 135, 250), (0, 0, 1, 1),
         [Trial("bn", 0.5, 0.75, -0.25)]),
        # Fog makes 155 and 195 of 90 and 170, less 50 they are 105 and 145; the other way round 130 and 170.  Two
        # corruptions are not reverted
        (Light(120), FOGGED, greys(90, 170), greys(90, 170), (0, 1), [Trial("bn", 1.0, 1.0, 0.0)]),
    ],
)  # fmt: skip
def test_mitigations_are_tried_on_images_corrupted_like_the_hidden_ones(
    panel: Any, fit: Fit, reference: Images, images: Images, truth: tuple[int, ...], trials: list[Trial]
) -> None:
    """The first half of what is at hand is the reference, whose labels are all wrong."""
    labels = np.array([9] * len(reference) + [*truth])
    assert trials_of_corruption(panel, fit, np.concatenate([reference, images]), labels) == trials


def trial(gain: float, unharmed: float = 0.0, mitigation: Mitigation = "bn") -> Trial:
    return Trial(mitigation, 0.5, 0.5 + gain, unharmed)


@pytest.mark.parametrize(
    ("adapt", "trials", "chosen"),
    [
        ("auto", [], "none"),
        # A mitigation must gain half a point, and cost less than one where nothing is wrong
        *(("auto", [trial(gain)], "none") for gain in (-0.1, 0.004)),
        ("auto", [trial(0.006)], "bn"),
        ("auto", [trial(0.1, -0.009)], "bn"),
        ("auto", [trial(0.1, -0.011)], "none"),
        ("auto", [trial(0.4, -0.5), trial(0.3, mitigation="revert"), trial(0.2)], "revert"),
        # What is asked for is done, whatever the trials say.
        ("none", [trial(0.2)], "none"),
        ("prior", [trial(0.2), trial(-0.2, mitigation="prior")], "prior"),
    ],
)
def test_the_best_of_the_recommended_is_chosen(adapt: Adapt, trials: list[Trial], chosen: Mitigation) -> None:
    assert choice(adapt, trials) == chosen


def test_the_prior_is_tried_on_probabilities_weighted_as_the_hidden_ones() -> None:
    classes = LabelShift(hidden=np.array([0.2, 0.8]), holdout=np.array([0.5, 0.5]), gain=9.0)
    trial = trial_of_prior(two(0.9, 0.6, 0.3, 0.85), np.array([0, 1, 1, 0]), classes)
    # A 0 weighs .4, a 1 1.6.  The second is wrong: (.4 + 1.6 + .4) / 4.  Times .4 and 1.6 it is .24 : .64, right.
    assert (trial.before, trial.after) == pytest.approx((0.6, 1.0)) and trial.recommended
    classes = LabelShift(hidden=np.array([0.3, 0.7]), holdout=np.array([0.5, 0.5]), gain=9.0)
    trial = trial_of_prior(two(0.6, 0.9, 0.1, 0.1), np.array([0, 0, 1, 1]), classes)
    # .6 x .6 against 1.4 x .4: the first is called 1, and weighs .6 of 4
    assert (trial.before, trial.after) == pytest.approx((1.0, 1 - 0.6 / 4)) and not trial.recommended


# --- a trained model

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
    known: dict[bytes, tuple[Diagnosis, NDArray[np.float64]]] = {}
    real = diagnosis.diagnose

    def diagnose(*seen: Any) -> tuple[Diagnosis, NDArray[np.float64]]:
        key = seen[2].tobytes()
        if key not in known:
            known[key] = real(*seen)
        return known[key]

    kinds = {name: KINDS[name] for name in (BGR, SCRAMBLED, "brightness", "blur")}
    with mock.patch.object(corruption_fit, "KINDS", kinds), mock.patch.object(diagnosis, "diagnose", diagnose):
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
    """Predict the hidden images, changed or not; and how many of the labels are right."""
    folder = root / hidden / SLUG
    if not folder.exists():
        shutil.copytree(root / "processed" / SLUG, folder)
        change(folder, hidden_images=np.ascontiguousarray(CHANGES[hidden](np.load(folder / "hidden_images.npy"))))
    data = Processed.open(folder)
    run = Run.open(root / "models", "r")
    panel = Panel(inference.load([run], Device("cpu", "fp32")), "none", 100)
    truth = np.asarray(data.array("test_labels"))
    test = inference.predict(panel, data, "test_images", np.arange(len(truth)), truth)
    evidence, findings = predict_hidden(
        panel, data, adapt, lambda line: None, test=test, validation=None, recorded=run.result.test_accuracy / 100
    )
    return evidence, findings, float((evidence.hidden.labels == truth[::3]).mean())


def test_nothing_is_done_where_nothing_is_wrong(root: Path) -> None:
    _, found, right = predicted(root, "same", "auto")
    assert (found.diagnosis.verdict, found.mitigation, found.trials) == ("none", "none", ())
    assert found.diagnosis.contract == pytest.approx(0, abs=1e-6) and right > 0.9


def test_swapped_channels_are_found_and_reverted(root: Path) -> None:
    _, plainly, before = predicted(root, "swapped", "none")
    evidence, found, after = predicted(root, "swapped", "auto")
    clean = predicted(root, "same", "auto")[2]
    assert plainly.diagnosis.verdict == "preprocessing" and "BGR" in plainly.diagnosis.reason
    assert found.mitigation == "revert" and before < clean - 0.2 and after == pytest.approx(clean)
    assert Findings.from_dict(evidence.diagnosis) == found
    (trial,) = [trial for trial in found.trials if trial.mitigation == "revert"]
    assert (trial.before, trial.after) == pytest.approx((before, after), abs=0.1)


def test_batch_norm_adaptation_helps_against_a_corruption(root: Path) -> None:
    plainly, found, before = predicted(root, "bright", "none")
    adapted, applied, after = predicted(root, "bright", "bn")
    assert found.diagnosis.verdict == "corruption" and found.mitigation == "none"
    assert applied.mitigation == "bn" and after > before
    assert not np.array_equal(adapted.hidden.probabilities, plainly.hidden.probabilities)


def test_what_was_not_found_cannot_be_reverted(root: Path) -> None:
    with pytest.raises(UsageError, match=r"--adapt revert: nothing was found .*diagnosis none"):
        predicted(root, "same", "revert")
