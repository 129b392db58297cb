import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.gap import corruption_fit, diagnosis
from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Corruption, Images
from pipeline.gap.diagnosis import Diagnosis, Findings, Trial, Verdict, conclude, diagnose
from pipeline.gap.shift import label_shift
from pipeline.store.manifest import Manifest
from tests.gap.cases import ALIKE, NOTHING, SWAPPED, InMemory
from tests.support import NAMES
from tests.support import images as smooth_images

NOISY = Fit(4.0, (Corruption("gaussian noise", 12.0),), 1.0, (("noise", 5.0),), True)
BOTH = replace(NOISY, corruptions=(Corruption("contrast", 0.5), *NOISY.corruptions))
OWN = (Corruption("blur", 0.5), Corruption("blur", 0.8), Corruption("JPEG", 20.0), *NOISY.corruptions)
MIXED = replace(NOISY, corruptions=OWN, shares=(0.25, 0.15, 0.01, 0.31), unexplained=0.08)
EVEN = np.full(10, 0.1)
PRIOR = (0.30, 0.10, 0.10, 0.01, 0.10, 0.10, 0.05, 0.08, 0.08, 0.08)


def concluded(**seen: Any) -> tuple[Verdict, str]:
    return conclude(replace(NOTHING, **({"harder_limit": 0.015} | seen)), EVEN, NAMES)


def far(distance: float, *, degraded: bool) -> Fit:
    return replace(ALIKE, distance=distance, left=distance, degraded=degraded)


@pytest.mark.parametrize(
    ("seen", "verdict", "reason"),
    [
        ({}, "none", "no difference beyond sampling noise"),
        # The path may move one label in 500.
        *(({"contract": contract}, "none", "") for contract in (None, 0.0019)),
        *(({"contract": contract}, "preprocessing", "") for contract in (0.0021, -0.0021)),
        ({"contract": -0.034, "pixels": SWAPPED}, "preprocessing", "-3.40 points off training's: this machine"),
        ({"pixels": NOISY}, "corruption", "noise (deviation 12); accounts for 75% of the shift in pixel statistics"),
        ({"pixels": BOTH}, "corruption", "contrast (times 0.5), then gaussian noise (deviation 12); "),
        (
            {"pixels": MIXED},
            "corruption (mixed)",
            "each image has its own corruption: blur 40%, gaussian noise 31%, clean 20%, unexplained 8%",
        ),
        # A mistake can be fixed.
        ({"pixels": replace(NOISY, corruptions=NOISY.corruptions + SWAPPED.corruptions)}, "preprocessing", "BGR"),
        ({"pixels": far(1.19, degraded=False)}, "none", ""),
        ({"pixels": far(1.21, degraded=False)}, "unknown", ""),
        ({"pixels": far(1.21, degraded=True)}, "corruption", "(red +0.1, green -0.1, noise +0.1 deviations"),
        # Significant, but small; large, but of few images.
        ({"harder": 0.019, "harder_limit": 0.001}, "none", ""),
        ({"harder": 0.021, "harder_limit": 0.001}, "natural", "2% more low-confidence predictions than on the holdout"),
        ({"harder": 0.05, "harder_limit": 0.06}, "none", ""),
        ({"harder": 0.07, "harder_limit": 0.06}, "natural", "chance: up to 6%"),
        # No more than a label shift brings with it.
        ({"harder": 0.07, "label_distance": 0.3}, "label_shift", ""),
        ({"harder": 0.08, "label_distance": 0.3}, "natural", ""),
        ({"label_distance": 0.099}, "none", ""),
        ({"label_distance": 0.101, "prior": PRIOR}, "label_shift", "zero 30% for 10%, three 1% for 10%, six 5%"),
        ({"auc": 0.79}, "none", ""),
        ({"auc": 0.81}, "unknown", "AUC 0.81"),
    ],
)
def test_effects_give_the_verdict_and_the_reason_names_them(
    seen: dict[str, Any], verdict: Verdict, reason: str
) -> None:
    assert (diagnosis.KEPT, diagnosis.SMALL, diagnosis.MOVED) == (0.002, 0.02, 0.10)
    assert (diagnosis.FEATURES_APART, corruption_fit.FAR * ALIKE.limit) == (0.80, 1.2)
    found = concluded(**seen)
    assert found[0] == verdict and reason in found[1]


def test_the_first_check_that_finds_something_gives_the_verdict() -> None:
    """Contract, pixels, probabilities, classes, features: each in turn is set right, and the next one is heard."""
    wrong: dict[str, Any] = {"contract": -0.5, "pixels": NOISY, "harder": 0.5, "label_distance": 0.5, "auc": 0.99}
    heard = []
    for name in list(wrong):
        heard.append(concluded(**wrong)[0])
        del wrong[name]
    assert heard == ["preprocessing", "corruption", "natural", "label_shift", "unknown"]


# --- as stored

FOUND = Findings(
    replace(NOTHING, verdict="corruption", pixels=MIXED, contract=None),
    (Trial("bn", 0.61, 0.72, -0.004), Trial("revert", 0.61, 0.6, 0.0)),
    "bn",
    0.715,
)


def stored(findings: Findings) -> Any:
    return json.loads(json.dumps(findings.to_dict()))


@pytest.mark.parametrize("found", [FOUND, Findings(NOTHING, (), "none")])
def test_findings_survive_json(found: Findings) -> None:
    again = Findings.from_dict(stored(found))
    assert again == found and hash(again) == hash(found)  # tuples all the way down


def test_damaged_findings_are_bad_data_with_their_cure() -> None:
    unknown = stored(FOUND)
    unknown["diagnosis"]["pixels"]["damages"][0]["name"] = "rust"
    damaged: list[Any] = ["text", {"diagnosis": {}}, unknown]
    for values in damaged:
        with pytest.raises(BadData, match=r"of another version .*predict again with --force"):
            Findings.from_dict(values)


# --- everything at once

COUNT = 400
TRUTH = np.arange(COUNT) % 10
SHIFTED = np.where(TRUTH < 8, 0, TRUTH)  # 80 % zeros
IMAGES: Images = smooth_images(COUNT)


def confident(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Probabilities of .91 to 1 of these labels."""
    largest = 1 - 0.09 * np.random.default_rng(1).random(len(labels))
    probabilities = np.repeat((1 - largest)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(len(labels)), labels] = largest
    return probabilities


def diagnosed(
    hidden: NDArray[np.integer], *, recorded: float | None = 1.0, holdout_images: Images = IMAGES,
    training_images: Images = IMAGES[:9],
) -> Diagnosis:  # fmt: skip
    """Of test images with these labels."""
    arrays: dict[str, NDArray[Any]] = {
        "test_images": holdout_images,
        "test_labels": TRUTH,
        "train_images": training_images,
    }
    data = InMemory(Path(), Manifest("preprocess", {}, facts={"class_names": NAMES}), arrays)
    holdout, unlabelled = confident(TRUTH), confident(hidden)
    classes = label_shift(holdout, TRUTH, unlabelled)
    return diagnose(data, IMAGES, classes, holdout, unlabelled, auc=0.5, recorded=recorded)


def test_equal_sets_get_a_clean_bill() -> None:
    found = diagnosed(TRUTH, training_images=np.concatenate([255 - IMAGES[:5], IMAGES[5:6]]))
    assert found.verdict == "none" and found.reason
    assert found.pixels.distance < 0.01 and found.contract == 0 and found.label_distance == 0
    assert found.harder == pytest.approx(0, abs=1e-9) and found.prior == pytest.approx(EVEN, abs=0.01)
    assert found.alike[0] == found.alike[1] >= 1 / COUNT  # the same images
    assert Findings.from_dict(stored(Findings(found, (), "none"))).diagnosis == found  # no numpy type is in the way


def test_a_label_shift_is_seen() -> None:
    found = diagnosed(SHIFTED, recorded=None)
    assert found.contract is None and found.verdict == "label_shift"
    assert found.label_distance > 0.5 and found.prior[0] > 0.6
    assert found.reason.startswith("other class frequencies: zero")


@pytest.mark.parametrize(("labels", "verdict"), [(2, "none"), (3, "preprocessing")])
def test_a_path_that_moves_more_than_two_labels_is_found_out(labels: int, verdict: str) -> None:
    found = diagnosed(TRUTH, recorded=1 - labels / COUNT)  # two are more than one in 500
    assert found.verdict == verdict and found.contract == pytest.approx(labels / COUNT if labels > 2 else 0)


def test_only_an_even_sample_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "LOOKED_UP", 2)  # the first and the last
    ends = np.concatenate([IMAGES[:1], IMAGES[-1:]])
    found = diagnosed(TRUTH, holdout_images=IMAGES[1:-1], training_images=ends)
    assert found.alike == (1.0, 0.0)  # of hidden and of holdout images
