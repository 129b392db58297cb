import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Paths
from pipeline.gap.advice import FLIP, SEEDS, STRONG, advise, raised
from pipeline.gap.assessment import assess, record
from pipeline.gap.diagnosis import Findings, Trial
from pipeline.gap.estimators import probit_line
from pipeline.recipes import PRESETS
from pipeline.store import atomic, runs
from pipeline.store.runs import RunCard
from pipeline.store.submissions import Mitigation
from tests.gap.cases import NOTHING
from tests.gap.test_assessment import KNOWN, NOW, csv, scored

GOOD, BETTER, LOSES = Trial("bn", 0.6, 0.7, 0.0), Trial("revert", 0.6, 0.9, 0.0), Trial("prior", 0.6, 0.5, 0.0)
HARMS = dataclasses.replace(GOOD, side_effect=-0.02)
SENT = "it is not submitted yet"


def advised(folder: Path, *trials: Trial, applied: Mitigation = "none", best: float | None = None, **found: Any) -> Any:
    """What is advised where no run is here, and `best` is the best score so far: (what, gain), and the commands."""
    simulated = trials[0].before if trials else None
    subject = csv(folder, found=Findings(dataclasses.replace(NOTHING, **found), trials, applied, simulated))
    entries = [] if best is None else [dataclasses.replace(scored(csv(folder, "b"), best), csv_sha256="other")]
    assessed = assess(subject, [], entries, KNOWN)
    entries = record(folder / "ledger.csv", entries, assessed, NOW)
    advice = advise(assessed, [subject], entries, Paths(models=folder, submissions=folder))
    return [(each.do, each.gain and round(each.gain)) for each in advice], [each.command for each in advice]


@pytest.mark.parametrize(
    ("trials", "found", "wanted"),
    [
        ((GOOD, LOSES, BETTER), {}, [("preprocessing fix", 30), ("batch-norm adaptation", 10)]),
        ((HARMS,), {}, []),
        ((GOOD, BETTER), {"applied": "bn"}, []),  # what is on is no advice
        ((LOSES,), {}, []),
        ((), {"verdict": "corruption"}, []),
        ((), {"verdict": "unknown"}, [("an unknown shift: look at the images", None)]),
    ],
)
def test_what_gained_in_simulation_is_advised_the_largest_gain_first(
    tmp_path: Path, trials: tuple[Trial, ...], found: dict[str, Any], wanted: list[tuple[str, float | None]]
) -> None:
    assert advised(tmp_path, *trials, **found)[0] == [(SENT, None), *wanted]


def test_a_run_of_another_competition_predicts_for_this_one(tmp_path: Path) -> None:
    for slug in ("c", "b"):
        card = RunCard(slug, "data", PRESETS["rehearsal"], "")
        atomic.write_json(tmp_path / "a" / runs.CONFIG, card.to_dict())
        assert ("--competition c" in advised(tmp_path, GOOD)[1][1]) == (slug == "b")


def test_a_csv_is_to_be_submitted_if_it_is_expected_to_beat_the_best_score(tmp_path: Path) -> None:
    send = f"python -m pipeline.submit --models {tmp_path} --submissions {tmp_path} --csv {tmp_path / 'a.csv'}"
    assert advised(tmp_path)[1] == [send]
    (what,), (command,) = advised(tmp_path, best=60.0)
    assert what[0] == f"{SENT}; against your best score" and what[1] > 10 and command == send
    what, _ = advised(tmp_path, GOOD, best=61.0)  # which it may beat, and may not
    assert what == [("batch-norm adaptation", 10)]
    what, commands = advised(tmp_path, GOOD, best=99.0)
    assert what[0][0].startswith("don't submit: ") and what[0][0].endswith("score, 99.00%; batch-norm adaptation")
    what, commands = advised(tmp_path, LOSES, best=99.0)
    assert len(what) == 1 and "pipeline.status" in commands[0]


@pytest.mark.parametrize(("local", "predicted"), [(0.95, 0.85), (0.9, 0.9), (0.6, 0.5)])
def test_a_gain_on_the_holdout_moves_the_score_along_a_line(local: float, predicted: float) -> None:
    line = [100 * probit_line([(local, predicted)], accuracy) for accuracy in (local, local + 0.01)]
    assert raised(predicted, local, local + 0.01) == pytest.approx(line[1] - line[0])
    assert all(0 < raised(predicted, *measured) < 3 for measured in (SEEDS, FLIP, STRONG))
