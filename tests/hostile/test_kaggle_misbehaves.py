"""The rows of kaggle_cases that are marked short; the long form has all of them, each in a place of its own."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.hostile.kaggle_cases import CASES
from tests.hostile.kaggle_place import Stage
from tests.hostile.kaggle_runs import Case, run_cases
from tests.hostile.kaggle_ways import CannotProvoke

pytestmark = pytest.mark.usefixtures("quick_client")  # the long form does without

SHORT = [case for case in CASES if case.short]


def leaves_no_trace(case: Case) -> bool:
    """Whether another row can follow in the same place."""
    return case.left == "as before" and case.sent == 0 and not callable(case.how)


def run(cases: Sequence[Case], folder: Path) -> None:
    try:
        run_cases(cases, folder)
    except CannotProvoke as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["download", "submit", "check"])
def test_after_one_failure_upon_the_other_the_next_run_completes(tmp_path: Path, name: Stage) -> None:
    run([case for case in SHORT if case.stage == name and leaves_no_trace(case)], tmp_path / "place")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.stage}-{c.name}") for c in SHORT if not leaves_no_trace(c)])
def test_after_the_failure_the_next_run_completes_with_one_submission(tmp_path: Path, case: Case) -> None:
    run([case], tmp_path / "place")


def test_the_names_of_the_rows_are_unique() -> None:
    names = [(case.stage, case.name) for case in CASES]
    assert len(set(names)) == len(names)
