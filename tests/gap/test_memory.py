import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.gap.adapt import Trial, recall, remember
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Done
from pipeline.gap.diagnosis import Diagnosis
from pipeline.store.submissions import Evidence, Outputs

FOUND = Diagnosis(
    verdict="corruption",
    reason="contrast, then noise",
    pixels=Found(
        4.2, (Done("contrast", 0.45), Done("gaussian noise", 12.1)), 0.7, (("noise", 4.5), ("red", -0.1)), True
    ),
    contract=None,
    auc=0.91,
    harder=0.4,
    harder_limit=0.02,
    label_distance=0.1,
    prior=(0.25, 0.75),
    alike=(0.0, 0.002),
)
TRIALS = (Trial("bn", 0.61, 0.72, -0.004), Trial("revert", 0.61, 0.6, 0.0))


def evidence(examination: Mapping[str, Any]) -> Evidence:
    probabilities, members = np.full((2, 2), 0.5, dtype=np.float32), np.zeros((1, 2), dtype=np.uint8)
    hidden, test = Outputs(probabilities, members, None), Outputs(probabilities, members, np.zeros(2, dtype=np.uint8))
    rows, features = np.arange(2), np.zeros((2, 3), dtype=np.float32)
    foreign = np.zeros(2, dtype=np.float32)
    return Evidence("sha", ("a",), hidden, test, None, rows, features, foreign, rows, features, examination)


def through_a_file(examination: Mapping[str, Any], folder: Path) -> Evidence:
    evidence(examination).write(folder / "a.csv")
    found = Evidence.read(folder / "a.csv")
    assert found is not None
    return found


def test_an_examination_survives_the_file(tmp_path: Path) -> None:
    kept = through_a_file(remember(FOUND, TRIALS, "bn"), tmp_path)
    assert recall(kept) == (FOUND, TRIALS, "bn")
    clean = dataclasses.replace(FOUND, verdict="none", contract=-0.001, pixels=Found(0.2, (), 0.2, (), False))
    kept = through_a_file(remember(clean, [], "none"), tmp_path)
    assert recall(kept) == (clean, (), "none")


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        del values[path[-1]]

    return change


def put(value: object, *path: str | int) -> Callable[[dict[Any, Any]], None]:
    def change(values: dict[Any, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "damage",
    [
        without("diagnosis"),
        without("trials"),
        without("measure"),
        without("diagnosis", "auc"),
        without("diagnosis", "pixels"),
        without("diagnosis", "pixels", "damages"),
        put("rust", "diagnosis", "pixels", "damages", 0, "name"),
        put(["blur"], "diagnosis", "pixels", "damages", 0, "name"),
        put([["noise"]], "diagnosis", "pixels", "outstanding"),
        put([["noise", "much"]], "diagnosis", "pixels", "outstanding"),
        put("nothing", "diagnosis", "pixels"),
        put(7, "diagnosis", "prior"),
        put(None, "diagnosis"),
        put(None, "trials"),
        put(1, "trials", 0, "luck"),
        put([3], "trials"),
    ],
)
def test_a_damaged_examination_is_bad_data_with_its_cure(damage: Callable[[Any], None], tmp_path: Path) -> None:
    values = copy.deepcopy(dict(remember(FOUND, TRIALS, "bn")))
    damage(values)
    kept = through_a_file(values, tmp_path)
    with pytest.raises(BadData, match=r"of another version .*predict again with --force"):
        recall(kept)


@pytest.mark.parametrize("values", [{}, [], None, "text"])
def test_evidence_that_holds_no_examination_is_bad_data(values: Any, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="predict again with --force"):
        recall(through_a_file(values, tmp_path))
