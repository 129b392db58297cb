import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.gap import corruption_fit, diagnosis
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Done, Images
from pipeline.gap.diagnosis import APART, KEPT, MOVED, SMALL, Diagnosis, Observed, Verdict, conclude, diagnose
from pipeline.gap.estimators import Answers
from tests.gap.cases import NOTHING
from tests.support import NAMES
from tests.support import images as smooth_images

ALIKE = Found(0.3, (), 0.3, (("red", 0.1), ("green", -0.1), ("noise", 0.05)), False)
NOISY = Found(4.0, (Done("gaussian noise", 12.0),), 1.0, (("noise", 5.0),), True)
SWAPPED = Found(2.0, (Done("channels swapped, BGR for RGB"),), 0.2, (("red - blue", -2.5),), False)
EVEN = np.full(10, 0.1)
SEEN = dataclasses.replace(NOTHING, pixels=ALIKE, auc=0.55, harder_limit=0.015, alike=(0.01, 0.02))


def verdict(**seen: Any) -> Verdict:
    return conclude(dataclasses.replace(SEEN, **seen), EVEN, NAMES)[0]


def reason(**seen: Any) -> str:
    return conclude(dataclasses.replace(SEEN, **seen), EVEN, NAMES)[1]


def strange(distance: float, *, spoilt: bool) -> Found:
    return dataclasses.replace(ALIKE, distance=distance, left=distance, spoilt=spoilt)


def test_nothing_is_the_matter_with_images_of_the_same_kind() -> None:
    assert verdict() == "none" and "no difference" in reason()


@pytest.mark.parametrize(
    ("contract", "said"),
    [(None, "none"), (0.0019, "none"), (-0.0019, "none"), (0.0021, "preprocessing"), (-0.0021, "preprocessing")],
)
def test_the_path_may_move_one_label_in_500(contract: float | None, said: Verdict) -> None:
    assert KEPT == 0.002 and verdict(contract=contract) == said


def test_a_broken_contract_says_by_how_much() -> None:
    assert "-3.40 points off what training noted" in reason(contract=-0.034)


def test_damages_give_the_verdict_of_their_kind() -> None:
    assert verdict(pixels=NOISY) == "corruption"
    assert verdict(pixels=SWAPPED) == "preprocessing"
    both = dataclasses.replace(NOISY, damages=(*NOISY.damages, *SWAPPED.damages))
    assert verdict(pixels=both) == "preprocessing"  # which can be mended


def test_damages_are_named_with_what_they_explain() -> None:
    assert reason(pixels=NOISY) == "gaussian noise (deviation 12); it explains 75 % of how the pixels differ"
    both = dataclasses.replace(NOISY, damages=(Done("contrast", 0.5), *NOISY.damages))
    assert reason(pixels=both).startswith("contrast (times 0.5), then gaussian noise (deviation 12); ")


@pytest.mark.parametrize(
    ("distance", "spoilt", "said"),
    [(1.19, False, "none"), (1.21, False, "unknown"), (1.21, True, "corruption")],
)
def test_pixels_that_nothing_explains_are_unknown_unless_spoilt(distance: float, spoilt: bool, said: Verdict) -> None:
    pixels = strange(distance, spoilt=spoilt)
    assert corruption_fit.STRANGE * corruption_fit.NOTICEABLE == 1.2 and verdict(pixels=pixels) == said
    if said != "none":
        assert "as no known damage would make them (red +0.1, green -0.1, noise +0.1 deviations" in reason(
            pixels=dataclasses.replace(pixels, outstanding=(("red", 0.1), ("green", -0.1), ("noise", 0.06)))
        )


@pytest.mark.parametrize(
    ("harder", "limit", "moved", "said"),
    [
        (0.019, 0.001, 0.0, "none"),  # significant, but small
        (0.021, 0.001, 0.0, "natural"),
        (0.05, 0.06, 0.0, "none"),  # large, but of few images
        (0.07, 0.06, 0.0, "natural"),
        (0.07, 0.01, 0.3, "label_shift"),  # no more than shifted classes bring with them
        (0.08, 0.01, 0.3, "natural"),
    ],
)
def test_images_are_harder_beyond_chance_and_beyond_what_classes_explain(
    harder: float, limit: float, moved: float, said: Verdict
) -> None:
    assert SMALL == 0.02 and verdict(harder=harder, harder_limit=limit, label_distance=moved) == said


def test_harder_images_are_said_to_be_so_in_per_cent() -> None:
    said = reason(harder=0.12, harder_limit=0.03)
    assert "of 12 % more of them" in said and "by chance up to 3 %" in said


def test_classes_have_shifted_if_one_in_ten_images_would_have_to_change() -> None:
    assert MOVED == 0.10
    assert verdict(label_distance=0.099) == "none" and verdict(label_distance=0.101) == "label_shift"


def test_the_classes_that_moved_most_are_named_with_their_shares() -> None:
    prior = (0.30, 0.10, 0.10, 0.01, 0.10, 0.10, 0.05, 0.08, 0.08, 0.08)
    said = reason(label_distance=0.25, prior=prior)
    assert said.endswith("zero 30 % for 10 %, three 1 % for 10 %, six 5 % for 10 %")


def test_features_that_are_told_apart_are_unknown() -> None:
    assert APART == 0.80
    assert verdict(auc=0.79) == "none" and verdict(auc=0.81) == "unknown"
    assert "AUC 0.81" in reason(auc=0.81)


def test_the_first_check_that_finds_something_gives_the_verdict() -> None:
    """Contract, pixels, answers, classes, features: each in turn is mended, and the next one is heard."""
    wrong: dict[str, Any] = {
        "contract": -0.5,
        "pixels": NOISY,
        "harder": 0.5,
        "label_distance": 0.5,
        "auc": 0.99,
    }
    heard = []
    for name in list(wrong):
        heard.append(verdict(**wrong))
        del wrong[name]
    assert heard == ["preprocessing", "corruption", "natural", "label_shift", "unknown"]
    assert verdict(**wrong) == "none"
    assert verdict(pixels=strange(2.0, spoilt=False), harder=0.5) == "unknown"
    assert "training noted" in reason(contract=-0.5, pixels=SWAPPED)  # both are called preprocessing


@pytest.mark.parametrize("pixels", [ALIKE, NOISY, SWAPPED])
@pytest.mark.parametrize("contract", [None, -0.01])
def test_a_diagnosis_survives_json(pixels: Found, contract: float | None) -> None:
    told = dataclasses.replace(SEEN, verdict="natural", reason="a reason", pixels=pixels, contract=contract)
    again = Diagnosis.from_dict(json.loads(json.dumps(told.to_dict())))
    assert again == told
    assert hash(again.pixels) == hash(pixels)  # tuples all the way down
    assert again.pixels.does(smooth_images(2)).shape == (2, 32, 32, 3)


def test_an_unknown_damage_is_of_another_version() -> None:
    values = dataclasses.replace(SEEN, pixels=NOISY).to_dict()
    values["pixels"]["damages"][0]["name"] = "rust"
    with pytest.raises(KeyError, match="unknown damage"):
        Diagnosis.from_dict(values)


def test_fields_of_another_version_are_refused() -> None:
    with pytest.raises(TypeError):
        Diagnosis.from_dict({**SEEN.to_dict(), "mood": 1})
    with pytest.raises(KeyError):
        Diagnosis.from_dict({key: value for key, value in SEEN.to_dict().items() if key != "prior"})


# --- everything at once -----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
COUNT = 400
TRUTH = np.arange(COUNT) % 10
IMAGES: Images = smooth_images(COUNT)
FEATURES = RNG.normal(size=(2, COUNT, 4)).astype(np.float32)


def answers(labels: NDArray[np.integer]) -> Answers:
    """Sure of these by .91 to 1, whatever they are."""
    sure = 1 - 0.09 * np.random.default_rng(1).random(len(labels))
    probabilities = np.repeat((1 - sure)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(len(labels)), labels] = sure
    return Answers(probabilities)


def observed(hidden: NDArray[np.integer], **changes: Any) -> Observed:
    rows = np.arange(COUNT)
    seen = Observed(answers(TRUTH), TRUTH, answers(hidden), rows, FEATURES[0], FEATURES[1], 1.0)
    return dataclasses.replace(seen, **changes)


def test_equal_sets_get_a_clean_bill() -> None:
    training = np.concatenate([255 - IMAGES[:5], IMAGES[5:6]])
    found, foreign = diagnose(observed(TRUTH), IMAGES, IMAGES, training, NAMES)
    assert found.verdict == "none" and found.reason
    assert found.pixels.distance < 0.01 and found.contract == 0 and found.label_distance == 0
    assert found.harder == pytest.approx(0, abs=1e-9)
    assert found.auc == pytest.approx(0.5, abs=0.08) and foreign.shape == (COUNT,)
    assert found.prior == pytest.approx(EVEN, abs=0.01)
    assert found.alike[0] == found.alike[1] >= 1 / COUNT  # the same images
    assert Diagnosis.from_dict(json.loads(json.dumps(found.to_dict()))) == found  # no numpy type is in the way


def test_shifted_classes_are_seen_and_weigh_on_the_accuracy() -> None:
    wrong_in_0 = np.where((TRUTH == 0) & (np.arange(COUNT) % 20 == 0), 1, TRUTH)  # every second 0 is called 1
    shifted = np.where(TRUTH < 8, 0, TRUTH)  # 80 % zeros
    seen = observed(shifted, local=answers(wrong_in_0), recorded=None)
    found, _ = diagnose(seen, IMAGES, IMAGES, IMAGES[:9], NAMES)
    assert found.contract is None and found.verdict == "label_shift"
    assert found.label_distance > 0.5 and found.prior[0] > 0.6
    assert found.reason.startswith("classes come in other shares: zero")


def test_features_that_differ_by_class_alone_are_not_foreign() -> None:
    shifted = np.where(TRUTH < 8, 0, TRUTH)
    rows = np.arange(COUNT // 2)  # of the others nobody has asked for features
    features, foreign = (FEATURES[k] + 3 * (labels == 0)[:, None] for k, labels in enumerate((TRUTH, shifted)))
    seen = observed(shifted, local_rows=rows, local_features=features[rows], hidden_features=foreign)
    found, _ = diagnose(seen, IMAGES, IMAGES, IMAGES[:9], NAMES)
    assert found.verdict == "label_shift" and found.auc == pytest.approx(0.5, abs=0.1)


def test_a_path_that_loses_accuracy_is_found_out() -> None:
    found, _ = diagnose(observed(TRUTH, recorded=0.98), IMAGES, IMAGES, IMAGES[:9], NAMES)
    assert found.contract == pytest.approx(0.02) and found.verdict == "preprocessing"


def test_two_labels_are_rounding_in_a_small_set_too() -> None:
    for labels, said in ((2, "none"), (3, "preprocessing")):
        seen = observed(TRUTH, recorded=1 - labels / COUNT)  # two are more than one in 500
        assert diagnose(seen, IMAGES, IMAGES, IMAGES[:9], NAMES)[0].verdict == said


def test_only_an_even_sample_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "LOOKED_UP", 2)  # the first and the last
    training = np.concatenate([IMAGES[:1], IMAGES[-1:]])
    found, _ = diagnose(observed(TRUTH), IMAGES[1:-1], IMAGES, training, NAMES)
    assert found.alike == (1.0, 0.0)  # of hidden and of local images
