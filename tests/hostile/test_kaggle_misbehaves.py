"""The rows of kaggle_cases: after the failure the next run completes, with one submission of the CSV."""

import pytest

from tests.hostile.kaggle_cases import CASES
from tests.hostile.kaggle_place import Case, Places, Stage, run_case

pytestmark = pytest.mark.usefixtures("quick_client")  # tests/bench/soak.py does without


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[Stage, Places]:
    return {stage: Places(tmp_path_factory.mktemp("kaggle") / stage, stage) for stage in CASES}


@pytest.mark.parametrize(
    ("stage", "case"),
    [pytest.param(stage, case, id=f"{stage}-{case.name}") for stage, cases in CASES.items() for case in cases],
)
def test_after_the_failure_the_next_run_completes(places: dict[Stage, Places], stage: Stage, case: Case) -> None:
    run_case(case, stage, places[stage])
