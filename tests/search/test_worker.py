from datetime import datetime, timedelta

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.recipes import PRESETS
from pipeline.search.specs import parse
from pipeline.search.worker import RUN, Worker

BEGAN = datetime(2026, 11, 25, 12, 0)


def test_a_trial_tells_how_long_the_others_will_take_all_workers() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", study_name="s")
    for seconds in (50, 60, 600):  # the last one's machine slept
        study.add_trial(complete(seconds))
    said: list[str] = []
    space = parse(PRESETS["rehearsal"], ["seed=0,1"])
    worker = Worker(None, study, space, 10, 60, lambda _config, _name: 0.0, lambda: None, said.append)  # type: ignore[arg-type]
    worker._after(study, study.trials[1])
    study.ask()  # somebody else's
    worker._after(study, study.trials[1])
    assert [line.split("  ")[-1] for line in said] == ["3 of 10, 0:07:00 to go", "3 of 10, 0:03:30 to go"]
    worker.total = 3
    worker._after(study, study.trials[1])
    assert said[-1].endswith("  3 of 3")


def complete(seconds: float) -> FrozenTrial:
    trial = create_trial(state=TrialState.COMPLETE, value=90.0, user_attrs={RUN: "s-1"})
    trial.datetime_start, trial.datetime_complete = BEGAN, BEGAN + timedelta(seconds=seconds)
    return trial
