from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.store.ensemble import Ensemble
from tests.support import prepare, write_run


@pytest.fixture
def models(tmp_path: Path) -> Path:
    prepare(tmp_path)
    for seed, name in enumerate("ab"):
        write_run(tmp_path, name, seed)
    return tmp_path / "data/models"


def test_the_order_of_the_names_does_not_matter(models: Path) -> None:
    one, other = (Ensemble.open(models, models / "none", names) for names in (["a", "b"], ["b", "a"]))
    assert one == other
    assert one.name == "a+b"
    assert one.csv_name == f"ensemble-{one.weights_sha256[:8]}.csv"
    assert one.weights_sha256 not in {run.weights_sha256 for run in one.runs}
    assert one.parameters == 2 * one.runs[0].result.trainable_parameters


def test_one_run_is_an_ensemble_of_its_own_name_and_weights(models: Path) -> None:
    one = Ensemble.open(models, models / "none", [])
    assert (one.name, one.csv_name, one.weights_sha256) == ("b", "b.csv", one.runs[0].weights_sha256)


def test_a_run_that_is_named_twice_is_refused(models: Path) -> None:
    with pytest.raises(UsageError, match="--run a: named twice"):
        Ensemble.open(models, models / "none", ["a", "b", "a"])
