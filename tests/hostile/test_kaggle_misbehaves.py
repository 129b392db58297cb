"""The rows of kaggle_cases: after the failure the next run completes, with one submission of the CSV."""

from pathlib import Path

import pytest

from tests.hostile.kaggle_cases import CASES
from tests.hostile.kaggle_place import Case, Stage, make_template, run_case

pytestmark = pytest.mark.usefixtures("quick_client")  # tests/bench/soak.py does without


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[Stage, Path]:
    return {stage: make_template(tmp_path_factory.mktemp(stage), stage) for stage in CASES}


@pytest.mark.parametrize(
    ("stage", "case"),
    [pytest.param(stage, case, id=f"{stage}-{case.name}") for stage, cases in CASES.items() for case in cases],
)
def test_after_the_failure_the_next_run_completes(
    templates: dict[Stage, Path], stage: Stage, case: Case, tmp_path: Path
) -> None:
    run_case(case, stage, templates[stage], tmp_path / "place")
