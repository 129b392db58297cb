"""Seats, heartbeats and the database; no training."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from pipeline.errors import PipelineError, UsageError
from pipeline.search import study as studies

# These tests take trials by hand, where the sweep lets `optimize` do it.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")

MEMORY = {"data": "abc", "model": {"name": "fast", "stem": 32}, "epochs": 2}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sub' / 'studies.sqlite3'}"


@pytest.fixture
def database(url: str) -> Iterator[RDBStorage]:
    with studies.quiet(), studies.opened(url, heartbeat=1) as database:
        yield database


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sweeps.sqlite3", "a database's URL"),
        ("mydb://user:hunter2@host/db", "a database's URL"),
        ("postgresql://user:hunter2@host:port/db", "a database's URL"),
        ("sqlite://", "in memory is lost"),
        ("sqlite:///:memory:", "in memory is lost"),
        ("mysql+mysqldb://user:hunter2@host/db?ssl=hunter2", r"mysql\+mysqldb://user:\*\*\*@host/db needs its driver"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_without_its_password(storage: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error, studies.quiet(), studies.opened(storage, 60):
        pass
    assert "hunter2" not in str(error.value)


def test_a_database_that_fails_is_one_line_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "OPENINGS", 1)
    (tmp_path / "hunter2").mkdir()  # sqlite cannot open a folder
    with (
        pytest.raises(PipelineError, match="run the same command again") as error,
        studies.quiet(),
        studies.opened(f"sqlite:///{tmp_path / 'hunter2'}", 60),
    ):
        pass
    assert "\n" not in str(error.value)
    url = make_url("postgresql://me:hunter2@host/db?sslpassword=hunter3")
    reason = studies._reason(RuntimeError("no login as me:hunter2, hunter3\nmore"), url)
    assert reason == "no login as me:***, ***"
    assert studies.shown(url) == "postgresql://me:***@host/db"


def test_a_study_remembers_what_its_workers_must_agree_on(database: RDBStorage) -> None:
    first = studies.join(database, "study", MEMORY, seed=0)
    assert studies.join(database, "study", dict(MEMORY), seed=0).study_name == first.study_name
    changed = {**MEMORY, "epochs": 3, "model": {"name": "wide", "stem": 64}, "--search dropout": "0:1"}
    with pytest.raises(UsageError, match="model: fast -> wide; epochs: 2 -> 3; --search dropout: None -> 0:1"):
        studies.join(database, "study", changed, seed=0)
    with pytest.raises(UsageError, match="epochs: 2 -> None"):
        studies.join(database, "study", {k: v for k, v in MEMORY.items() if k != "epochs"}, seed=0)
    assert studies.join(database, "another", changed, seed=0).study_name == "another"


def draws(database: RDBStorage, name: str, count: int, seed: int = 0) -> list[float]:
    study = studies.join(database, name, {}, seed)
    begun = len(study.trials)
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))
    return [trial.params["x"] for trial in study.trials[begun:]]


def test_a_sweep_draws_the_same_however_often_it_is_cut(database: RDBStorage) -> None:
    whole = draws(database, "whole", 14)  # the first ten are random, then TPE learns
    assert [*draws(database, "cut", 5), *draws(database, "cut", 5), *draws(database, "cut", 4)] == whole
    assert len(set(whole)) == 14
    assert draws(database, "other", 5, seed=1) != whole[:5]


@pytest.mark.parametrize("had_drawn", [True, False])
def test_a_sweep_that_is_cut_inside_a_trial_draws_the_same(database: RDBStorage, had_drawn: bool) -> None:
    whole = draws(database, "whole", 4)
    draws(database, "cut", 1)
    study = studies.join(database, "cut", {}, 0)
    lost = study.ask()
    if had_drawn:
        lost.suggest_float("x", 0, 1)
    studies.hand_back(lost)
    study.tell(lost, state=TrialState.FAIL)
    draws(database, "cut", 3)  # the first of them is the lost one's second try
    assert [trial.params["x"] for trial in study.get_trials(states=(TrialState.COMPLETE,))] == whole


def test_workers_that_begin_at_once_draw_different_values(database: RDBStorage) -> None:
    workers = [studies.join(database, "study", {}, seed=0) for _ in range(2)]
    one, other = (worker.ask() for worker in workers)
    assert one.suggest_float("x", 0, 1) != other.suggest_float("x", 0, 1)


def test_of_two_that_took_the_last_seat_the_later_gives_it_up(database: RDBStorage) -> None:
    study = studies.join(database, "study", {}, seed=0)
    study.tell(study.ask(), 1.0)
    study.tell(study.ask(), state=TrialState.FAIL)
    early, late = study.ask(), study.ask()
    assert studies.seats_taken(study) == 3
    assert (studies.surplus(early, total=2), studies.surplus(late, total=2)) == (False, True)
    assert not studies.surplus(late, total=3)


def test_a_trial_that_waits_to_be_tried_again_has_a_seat_before_later_ones(database: RDBStorage) -> None:
    study = studies.join(database, "study", {}, seed=0)
    lost = study.ask()
    x = lost.suggest_float("x", 0, 1)
    lost.set_user_attr("run", "study-0")
    studies.hand_back(lost)
    study.tell(lost, state=TrialState.FAIL)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    again = study.ask()
    assert (again.number, again.params, again.user_attrs) == (1, {"x": x}, {"run": "study-0"})
    assert not studies.surplus(again, total=1)


def test_the_best_comes_first_and_of_equal_ones_the_older(database: RDBStorage) -> None:
    study = studies.join(database, "study", {}, seed=0)
    for value in (1.0, 3.0, 2.0, 3.0):
        study.tell(study.ask(), value)
    assert [trial.number for trial in studies.ranking(study)] == [1, 3, 2, 0]


def test_nothing_is_said_by_optuna(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    def objective(trial: optuna.Trial) -> float:
        raise PipelineError("diverged")

    with studies.quiet(), studies.opened(url, heartbeat=1) as database:
        study = studies.join(database, "study", {}, seed=0)
        study.optimize(objective, n_trials=1, catch=(PipelineError,))
        studies.wait(database, study, 1, set())
    assert capfd.readouterr() == ("", "")
