"""The stage through its real command line; where nothing depends on training, trials are calculated."""

import dataclasses
import errno
import json
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline import sweep, train
from pipeline.config import Paths
from pipeline.errors import DeviceFailed, MissingInput, PipelineError, UsageError
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.store import atomic, runs
from tests import test_train
from tests.support import Killed
from tests.test_commands import parsed
from tests.training.tiny import SLUG, before_step

NAME = "study"
FAST = PRESETS["fast"]
RATE = "learning_rate=log:1e-3:1e-1"

# Instead of training: the best rate is 0.01, and a run's folder holds nothing but its card and its manifest.
CALCULATED = """
import math, time
from types import SimpleNamespace
from pipeline import sweep
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest

def calculated(config, paths, slug, *, run_name, device, log, trial):
    time.sleep(SECONDS)
    card = runs.RunCard(slug, "", config, trial)
    atomic.write_json(paths.models / run_name / runs.CONFIG, card.to_dict())
    Manifest("train", {}).write(paths.models / run_name)
    accuracy = 90 - abs(math.log10(config.learning_rate) + 2)
    return SimpleNamespace(result=SimpleNamespace(validation_accuracy=accuracy))

sweep.train = calculated
"""
# A process that calculates trials, and starts without PyTorch.
WORKER = f"""
import sys
from unittest import mock
sys.modules |= {{"pipeline.model.summary": mock.Mock(), "pipeline.training.device": mock.Mock()}}
SECONDS = 0.3{CALCULATED}
sys.exit(sweep.main(sys.argv[1:]))
"""


class Place(test_train.Place):
    """A folder of processed images, and a folder for runs."""

    def arguments(self, *more: str) -> list[str]:
        return super().arguments("--epochs", "1", "--device", "cpu", "--name", NAME, *more)

    def sweep(self, *more: str) -> int:
        return sweep.main(self.arguments(*more))

    @contextmanager
    def study(self) -> Iterator[optuna.Study]:
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.paths.models / sweep.STORAGE}")
        try:
            yield optuna.load_study(study_name=NAME, storage=storage)
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def trials(self) -> list[FrozenTrial]:
        with self.study() as study:
            return study.trials

    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def runs(self) -> set[str]:
        return {path.parent.name for path in self.paths.models.glob("*/*.json")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def calculated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of this process are calculated, not trained."""
    monkeypatch.setattr(sweep, "train", None)
    exec(CALCULATED, {"SECONDS": 0})


def best(trials: Sequence[FrozenTrial]) -> FrozenTrial:
    return max(trials, key=lambda trial: (trial.value or 0, -trial.number))


# --- what is searched -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "axis"),
    [
        ("learning_rate=log:0.02:1", FloatDistribution(0.02, 1.0, log=True)),
        ("dropout=0:0.5:0.25", FloatDistribution(0, 0.5, step=0.25)),
        ("cutout=0:16:4", IntDistribution(0, 16, step=4)),
        ("batch-size=64, 128,64", CategoricalDistribution((64, 128))),
        ("optimizer=sgd,adamw", CategoricalDistribution(("sgd", "adamw"))),
        ("decay_norms=true,False", CategoricalDistribution((True, False))),
        ("model=fast,paper", CategoricalDistribution(("fast", "paper"))),
    ],
)
def test_a_spec_becomes_what_a_field_varies_over(search: str, axis: BaseDistribution) -> None:
    name = search.partition("=")[0].replace("-", "_")
    assert sweep.parse([search]) == {name: axis}


@pytest.mark.parametrize(
    ("preset", "search", "message"),
    [
        ("rehearsal", "momentum=0.5:0.9", "momentum belongs to --optimizer sgd or muon; this preset: adam"),
        ("paper", "validation-fraction=0.1,0.2", "belongs to --validation split; this preset: test_batch"),
        ("fast", "validation=split,test_batch", "accuracies on different sets cannot be compared"),
    ],
)
def test_a_search_without_effect_or_sense_is_refused(preset: str, search: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--search .*{message}"):
        sweep.require_effect(sweep.parse([search]), PRESETS[preset])
    sweep.require_effect(sweep.parse(["momentum=0.5:0.9", "optimizer=sgd,adam", "validation=split"]), PRESETS["paper"])


@pytest.mark.parametrize(
    ("searches", "message"),
    [
        (["cutout=0,4", "cutout=8"], "--search cutout=8: name each field once"),
        (["distillation_weight=0:1"], "name each field once; the fields are model, validation, "),
        (["learning_rate"], "SPEC is LOW:HIGH[:STEP], log:LOW:HIGH, or A,B,C"),
        (["model=fast,vgg"], "'vgg' is not one of 'paper', 'fast'"),
        (["optimizer=adam:sgd"], "a range has two ends, which are numbers"),
        (["dropout=0:1"], "1 is not at least 0 and below 1"),
        (["cutout=4.5,8"], "'4.5' is not a valid integer"),
        (["dropout=0:0.5:nan"], "a range has two ends"),
        (["dropout=0.5:0.1"], "`low <= high` must hold"),
    ],
)
def test_a_wrong_search_is_refused_with_what_would_fit(searches: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        sweep.parse(searches)
    assert message in str(error.value)


# --- a study ----------------------------------------------------------------------------------------------


def test_a_study_finds_the_best_run_which_is_never_the_latest(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "learning-rate=log:1e-4:1e-1", "--search", "optimizer=adam,sgd"]
    with mock.patch("optuna.samplers.TPESampler", wraps=optuna.samplers.TPESampler) as sampler:
        assert place.sweep("--trials", "2", *search) == 0
    assert sampler.call_args == mock.call(constant_liar=True)  # workers would search the same place, or draw the same
    output, errors = capsys.readouterr()
    assert re.findall(r"^trial (\d) .* best ", errors, re.MULTILINE) == ["0", "1"]
    assert [trial.state for trial in place.trials()] == [TrialState.COMPLETE] * 2
    found = best(place.trials())
    with pytest.raises(
        MissingInput, match=f"only a sweep's trials have finished in .*; there is {NAME}-{found.number}"
    ):
        runs.latest(place.paths.models)
    run = runs.Run.open(place.paths.models, f"{NAME}-{found.number}")
    assert run.card.trial == NAME
    assert run.result.validation_accuracy == found.value
    assert {name: getattr(run.card.config, name) for name in found.params} == found.params
    assert place.runs() == {run.name}
    lines = output.splitlines()
    assert f"{found.value:.2f}%" in lines[lines.index("the best of 2 complete trials:") + 2]
    command = lines[-1].removeprefix("next, in full: python -m pipeline.train ")
    in_full = dataclasses.replace(PRESETS["rehearsal"], **found.params)  # over the preset's epochs
    assert parsed(shlex.split(command)) == in_full
    assert command.startswith(f"--competition tiny --processed {place.paths.processed} --models {place.paths.models}")


@pytest.mark.parametrize(
    ("epochs", "values", "expected"),
    [
        (2, {"decay_norms": True, "model": "paper", "cutout": 4, "learning_rate": 0.1 / 3}, {"epochs": FAST.epochs}),
        (2, {"epochs": 20, "warmup_epochs": 1.0}, {"epochs": 20, "warmup_epochs": 1.0}),
        (2, {"warmup_epochs": 0.5}, {"warmup_epochs": FAST.epochs / 4}),  # a quarter of the run
        (FAST.epochs, {"momentum": 0.8, "optimizer": "adam"}, {"momentum": FAST.momentum}),  # adam has none
    ],
)
def test_the_best_trial_is_trained_in_full(epochs: int, values: dict[str, Any], expected: dict[str, Any]) -> None:
    base = dataclasses.replace(FAST.with_epochs(epochs), seed=5)
    full = dataclasses.replace(FAST, seed=5)
    command = shlex.split(sweep.train_command(base, values, SLUG, Paths()))
    assert parsed(command[3:]) == full.changed({**values, **expected})


def test_a_rerun_adds_only_what_is_missing(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", RATE, "--search", "cutout=0:8:4"]
    assert place.sweep("--trials", "2", "--keep", *search) == 0
    first = place.trials()
    assert place.runs() == {f"{NAME}-0", f"{NAME}-1"}
    capsys.readouterr()
    assert place.sweep("--trials", "2", *search) == 0
    assert " best " not in capsys.readouterr().err  # no trial was run
    assert place.trials() == first
    assert place.runs() == {f"{NAME}-{best(first).number}"}
    assert place.sweep("--trials", "3", *search) == 0
    assert place.trials()[:2] == first and len(place.complete()) == 3
    assert place.runs() == {f"{NAME}-{best(place.trials()).number}"}


def test_each_of_few_combinations_is_tried_once(calculated: None, place: Place) -> None:
    search = ["--search", "learning_rate=0.01,0.02", "--search", "cutout=0:8:4"]
    for trials, complete in ((4, 4), (20, 6), (20, 6)):
        assert place.sweep("--trials", str(trials), *search) == 0
        assert len({tuple(trial.params.values()) for trial in place.complete()}) == len(place.complete()) == complete


def test_what_train_refuses_is_not_tried_again(calculated: None, place: Place) -> None:
    for _ in range(2):
        assert place.sweep("--search", "cutmix=1", "--search", "mixup=0,0.3") == 0
        assert sorted(trial.state.name for trial in place.trials()) == ["COMPLETE", "PRUNED"]


def test_combinations_are_counted() -> None:
    assert sweep.combinations(sweep.parse(["dropout=0:0.5:0.25", "optimizer=sgd,adamw", "cutout=0:16:4"])) == 30
    assert sweep.combinations(sweep.parse(["seed=3:9", RATE])) == float("inf")


def test_another_base_or_space_is_refused(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.sweep("--trials", "1", "--search", RATE) == 0
    assert place.sweep("--trials", "2", "--search", "learning_rate=0.1:1", "--epochs", "2") == 2
    message = capsys.readouterr().err
    assert "epochs: 1 -> 2" in message and "--search learning_rate: FloatDistribution(high=0.1" in message
    assert "choose another --name" in message
    assert len(place.trials()) == 1


# --- what goes wrong in a trial ---------------------------------------------------------------------------


def test_refused_combinations_are_pruned(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    refused = "cutmix=1", "mixup=0.3,0"  # every trial but those without mixup
    assert place.sweep("--trials", "2", "--search", RATE, *(x for r in refused for x in ("--search", r))) == 0
    assert len(place.complete()) == 2 and all(trial.params["mixup"] == 0 for trial in place.complete())
    pruned = [trial for trial in place.trials() if trial.state == TrialState.PRUNED]
    assert len(re.findall("failed: use only one of --mixup", capsys.readouterr().err)) == len(pruned)


def test_a_diverged_run_is_removed_and_the_study_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = iter([1e30])

    def first_diverging(config: TrainConfig, *arguments: Any, **options: Any) -> runs.Run:
        steep = dataclasses.replace(config, learning_rate=next(rates, config.learning_rate), optimizer="sgd")
        return train.train(steep, *arguments, **options)

    monkeypatch.setattr(sweep, "train", first_diverging)
    assert place.sweep("--trials", "1", "--search", RATE) == 0
    assert [trial.state for trial in place.trials()] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert re.search(r"^trial 0  learning_rate=\S+  failed: .*no longer finite", capsys.readouterr().err, re.MULTILINE)
    assert place.runs() == {f"{NAME}-1"}


def test_another_run_of_a_trials_name_stays(place: Place) -> None:
    """A folder of the user's own, and a run that train made under a name that a trial would have."""
    notes, mine = place.paths.models / f"{NAME}-0/config.json", place.paths.models / f"{NAME}-1"
    atomic.write_json(notes, {"mine": 1})
    options = ("--epochs", "1", "--batch-size", "32", "--device", "cpu", "--seed", "9", "--run", mine.name)
    assert train.main(test_train.Place.arguments(place, *options)) == 0
    assert place.sweep("--trials", "1", "--search", "seed=0:99") == 0
    assert notes.read_text() == '{\n  "mine": 1\n}\n' and place.runs() >= {mine.name, f"{NAME}-0-2"}
    assert runs.latest(place.paths.models) == mine.name


def test_failures_in_a_row_end_the_sweep_with_their_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "train", mock.Mock(side_effect=PipelineError("the loss is no longer finite")))
    monkeypatch.setattr(sweep, "HOPELESS", 3)
    assert place.sweep("--trials", "9", "--search", RATE) == 1
    assert "3 trials failed in a row, the last one: the loss is no longer finite" in capsys.readouterr().err
    assert len(place.trials()) == 3


# --- many workers -----------------------------------------------------------------------------------------


def test_two_workers_that_begin_at_once_share_the_study(place: Place) -> None:
    command = [sys.executable, "-c", WORKER, *place.arguments("--trials", "5", "--search", RATE)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    did = [re.findall(r"^trial (\d+) .* best ", progress, re.MULTILINE) for _, progress in outputs]
    assert all(did)
    assert sorted(int(number) for numbers in did for number in numbers) == [t.number for t in place.complete()]
    assert len(place.complete()) in (5, 6)  # one may be in a trial when the other completes the fifth
    assert len({trial.params["learning_rate"] for trial in place.complete()}) == len(place.complete())
    assert place.runs() == {f"{NAME}-{best(place.complete()).number}"}


def test_a_killed_workers_trial_is_tried_again_and_goes_on_from_its_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--trials", "1", "--search", RATE, "--epochs", "2"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        before_step(patch, 1, 0, mock.Mock(side_effect=Killed))
        place.sweep(*more)
    folder = place.paths.models / f"{NAME}-0"
    (row,) = (folder / "metrics.jsonl").read_text().splitlines()
    with sqlite3.connect(place.paths.models / sweep.STORAGE) as database:  # no sign of life since
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'")
    database.close()
    assert place.sweep(*more) == 0
    lost, again = place.trials()
    assert (lost.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == lost.params
    assert runs.is_trial(folder)
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in rows] == [1, 2]
    assert rows[0] == row  # with its times: the first epoch was not trained twice


def test_a_worker_that_was_taken_for_dead_ends_in_one_line(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slept(_config: TrainConfig, _paths: Paths, _slug: str, **_options: object) -> SimpleNamespace:
        with place.study() as study:
            study.tell(0, state=TrialState.FAIL)
        return SimpleNamespace(result=SimpleNamespace(validation_accuracy=1.0))

    monkeypatch.setattr(sweep, "train", slept)
    assert place.sweep("--trials", "1", "--search", RATE) == 1
    assert "error: this worker missed its heartbeats: run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "full"), 1), (DeviceFailed("lost"), 1)]
)
def test_an_interrupted_sweep_goes_on_with_the_same_trial(
    place: Place, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = mock.Mock(side_effect=error)
    monkeypatch.setattr(sweep, "train", train)
    for _ in range(2):
        assert place.sweep("--trials", "2", "--search", "dropout=0,0.5") == code
    first, second = ((call.args[0], call.kwargs["run_name"]) for call in train.call_args_list)
    assert first == second and first[1] == f"{NAME}-0"


# --- what is refused before anything is spent -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--search'"),
        (["--search", "model=rehearsal,resnet18"], "11,173,962 trainable parameters"),
        (["--search", RATE, "--device", "mps"], "--device mps: PyTorch finds none here"),
        (["--search", RATE, "--name", "../study"], "--name '../study': a name of letters"),
        (["--search", RATE, "--storage", "postgresql://me:hunter2@host:port/db"], "the URL of a persistent database"),
        (["--search", RATE, "--storage", "sqlite://"], "the URL of a persistent database"),
        (
            ["--search", RATE, "--debug", "--storage", "mysql+mysqldb://me:hunter2@host/db?ssl=hunter2"],
            "mysql+mysqldb://me:***@host/db: install its driver, mysqldb",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    assert place.sweep(*arguments) == 2
    output, errors = capsys.readouterr()
    assert message in errors
    assert "hunter2" not in output + errors
    assert not place.paths.models.exists()


def test_a_database_that_fails_is_one_line_without_its_secrets(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = SQLAlchemyError("no login as me:hunter2, hunter3\nmore")
    monkeypatch.setattr(sweep, "RDBStorage", mock.Mock(side_effect=refused))
    url = "postgresql://me:hunter2@host/db?sslpassword=hunter3"
    assert place.sweep("--search", RATE, "--storage", url) == 1
    said = "error: the storage postgresql://me:***@host/db fails (no login as me:***, ***): run the same command again"
    assert capsys.readouterr() == ("", f"{said} to resume\n")


def test_a_sweep_is_not_for_torchrun(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert place.sweep("--search", RATE) == 2
    assert "start the same command several times" in capsys.readouterr().err


def test_workers_elsewhere_share_a_study_by_its_storage(
    calculated: None, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", f"sqlite:///{tmp_path}/shared.sqlite3")
    for trials, models in (("1", "here"), ("2", "there")):
        assert place.sweep("--trials", trials, "--search", RATE, "--models", str(tmp_path / models)) == 0
    assert re.findall(r"^trial (\d)", capsys.readouterr().err, re.MULTILINE) == ["0", "1"]  # one each


@pytest.mark.parametrize(("most", "searched"), [(2, False), (1, True)])
def test_too_many_combinations_are_searched(
    calculated: None, place: Place, monkeypatch: pytest.MonkeyPatch, most: int, searched: bool
) -> None:
    monkeypatch.setattr(sweep, "EXHAUSTIBLE", most)
    with mock.patch("optuna.samplers.TPESampler", wraps=optuna.samplers.TPESampler) as sampler:
        assert place.sweep("--trials", "1", "--search", "cutout=0,4") == 0
    assert sampler.called == searched
