import dataclasses
from typing import Any

import pytest

from pipeline.gap import assessment
from pipeline.gap.adapt import Trial
from pipeline.gap.assessment import ENSEMBLE, FLIP, STUDENT, Advice, advise, worth_of_a_point
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Done
from pipeline.gap.estimators import probit_line
from pipeline.store.submissions import Mitigation, Sidecar
from tests.gap.cases import NOTHING

ALIKE = Found(0.3, (), 0.3, (), False)
CARD = Sidecar("c", "a", "sha", 10, "w", "h", 95.0, "split", 95.0, "2025-01-01T00:00:00+00:00", {}, runs={"a": "w"})
DONE = dataclasses.replace(CARD, runs={"a": "w", "b": "w", "c": "w"}, tta="flip")
GOOD, BETTER, BAD = Trial("bn", 0.6, 0.7, 0.0), Trial("revert", 0.6, 0.9, 0.0), Trial("prior", 0.6, 0.5, 0.0)


def said(
    card: Sidecar = CARD, trials: tuple[Trial, ...] = (), measure: Mitigation = "none", **found: Any
) -> list[Advice]:
    return advise(card, dataclasses.replace(NOTHING, **found), trials, measure, 0.95, 0.85)


def texts(steps: list[Advice]) -> str:
    return "\n".join(step.do for step in steps)


@pytest.mark.parametrize(("local", "predicted"), [(0.95, 0.85), (0.9, 0.9), (0.99, 0.7), (0.6, 0.5), (0.85, 0.95)])
def test_a_local_point_is_worth_what_the_line_rises_by(local: float, predicted: float) -> None:
    step = 1e-5
    rise = (
        probit_line([(local, predicted)], local + step) - probit_line([(local, predicted)], local - step)
    ) / (2 * step)  # fmt: skip
    assert worth_of_a_point(local, predicted) == pytest.approx(rise, rel=1e-4)


def test_a_local_point_is_worth_more_on_a_harder_set() -> None:
    assert worth_of_a_point(0.95, 0.95) == pytest.approx(0.85)
    # .85 exp((1.6449 ** 2 - 1.0364 ** 2) / 2)
    assert worth_of_a_point(0.95, 0.85) == pytest.approx(1.922, abs=0.001)


def test_what_makes_any_network_better_is_worth_its_local_gain_times_that() -> None:
    seeds, mirrored, student = said()
    worth = worth_of_a_point(0.95, 0.85)
    assert [step.gain for step in (seeds, mirrored, student)] == pytest.approx(
        [worth * ENSEMBLE, worth * FLIP, worth * STUDENT]
    )
    assert "--run A B C" in seeds.do and "--tta flip" in mirrored.do and "--teacher A B C" in student.do
    assert seeds.source == "as measured locally, where a point is worth 1.9 here"


def test_what_is_done_is_not_advised_again() -> None:
    assert "--tta" not in texts(said(dataclasses.replace(CARD, tta="flip")))
    assert "--tta" not in texts(said(dataclasses.replace(CARD, mirrored=False)))  # digits, say
    assert "--tta" not in texts(said(dataclasses.replace(CARD, tta="flip-shift")))
    assert "three seeds" not in texts(said(dataclasses.replace(CARD, runs={"a": "w", "b": "w"})))
    (student,) = said(DONE)
    assert "--teacher" in student.do


def test_measures_come_first_by_what_they_gain_in_points() -> None:
    steps = said(trials=(GOOD, BAD, BETTER))
    assert [step.do for step in steps[:2]] == ["`predict --adapt revert`", "`predict --adapt bn`"]
    assert [step.gain for step in steps[:2]] == pytest.approx([30.0, 10.0])
    assert {step.source for step in steps[:2]} == {assessment.OWN}
    assert "prior" not in texts(steps)


def test_a_measure_that_does_harm_where_nothing_is_wrong_is_not_advised() -> None:
    assert "bn" not in texts(said(trials=(dataclasses.replace(GOOD, unharmed=-0.02),)))


def test_the_applied_measure_is_kept_and_no_other_is_advised() -> None:
    steps = said(trials=(GOOD, BETTER), measure="bn")
    assert steps[0].do == "keep --adapt bn, which is applied" and steps[0].gain == pytest.approx(10)
    assert "`predict --adapt" not in texts(steps)


def test_a_corruption_is_trained_against() -> None:
    steps = said(DONE, verdict="corruption", pixels=Found(4, (Done("blur", 1.0),), 0.3, (), True), trials=(GOOD,))
    assert [step.gain is None for step in steps] == [False, True, False]
    assert "--policy trivialaugment" in steps[1].do and "--policy trivialaugment" not in texts(said())


def test_what_is_unknown_is_looked_at() -> None:
    assert "check --pictures" in texts(said(verdict="unknown")) and "check --pictures" not in texts(said())


def test_a_path_that_differs_is_mended_on_the_machine_that_trained() -> None:
    assert "on the machine that has trained" in texts(said(verdict="preprocessing", contract=-0.1))
    # Damaged files are not this machine's fault
    swapped = Found(2.0, (Done("channels swapped, BGR for RGB"),), 0.2, (), False)
    assert "on the machine that has trained" not in texts(said(verdict="preprocessing", pixels=swapped))
    assert "machine" not in texts(said())


def test_a_step_says_its_gain_and_where_that_comes_from() -> None:
    assert str(Advice("do this", 1.26, "in a trial")) == "do this (+1.3 points in a trial)"
    assert str(Advice("do this", -0.5, "in a trial")) == "do this (-0.5 points in a trial)"
    assert str(Advice("do this", None, "")) == "do this (gain not measured)"


def test_a_measure_that_loses_is_advised_against() -> None:
    card = dataclasses.replace(CARD, measure="prior")
    (first, *_) = advise(card, NOTHING, [Trial("prior", 0.6, 0.5, 0.0)], "prior", 0.95, 0.85)
    assert first.do == "`predict --adapt none`: prior is applied and loses" and first.gain == pytest.approx(10)
