"""The stage through its real command line; where nothing depends on training, trials are calculated."""

import dataclasses
import gc
import json
import math
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from pipeline import cli_recipes, sweep, train
from pipeline.config import Paths
from pipeline.errors import PipelineError
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.search import report
from pipeline.search.specs import parse
from pipeline.store import runs
from pipeline.store.manifest import Manifest
from tests.training.tiny import SLUG, write_tiny

NAME = "study"
RATE = "learning_rate=log:1e-3:1e-1"

# Instead of training: the best rate is 0.01, and a run's folder holds nothing but its manifest.  No plots.
CALCULATED = """
import math, sys, time
from types import SimpleNamespace
from pipeline import sweep
from pipeline.search import report
from pipeline.store import runs
from pipeline.store.manifest import Manifest

def calculated(config, paths, slug, *, run_name, device, say):
    time.sleep(SECONDS)
    (paths.models / run_name).mkdir(parents=True, exist_ok=True)
    Manifest("train", {}).write(paths.models / run_name)
    runs.point_latest(paths.models, run_name)
    accuracy = 90 - abs(math.log10(config.learning_rate) + 2)
    return SimpleNamespace(result=SimpleNamespace(validation_accuracy=accuracy))

sweep.train, sweep._check_machine, report.plot = calculated, lambda plan: None, lambda *where: []
"""


class Place:
    """A folder of processed images, and a folder for runs."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(processed=root / "processed", models=root / "models")
        write_tiny(self.paths.processed)

    def arguments(self, *more: str) -> list[str]:
        folders = ["--processed", str(self.paths.processed), "--models", str(self.paths.models)]
        start = ["--competition", SLUG, "--preset", "rehearsal", "--epochs", "1", "--device", "cpu", "--name", NAME]
        return [*start, *folders, *more]

    def sweep(self, *more: str) -> int:
        return sweep.main(self.arguments(*more))

    def begin(self, script: str, *more: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", f"{script}\nsys.exit(sweep.main(sys.argv[1:]))", *self.arguments(*more)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def trials(self) -> list[FrozenTrial]:
        url = f"sqlite:///{self.paths.models / 'sweeps.sqlite3'}"
        storage = optuna.storages.RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
        try:
            return optuna.load_study(study_name=NAME, storage=storage).trials
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def runs(self) -> set[str]:
        return {path.parent.name for path in self.paths.models.glob("*/config.json")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def calculated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of this process are calculated, not trained."""
    monkeypatch.setattr(sweep, "train", None)
    monkeypatch.setattr(sweep, "_check_machine", None)
    monkeypatch.setattr(report, "plot", None)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # optuna's, after each trial, takes longer than the trial
    exec(CALCULATED, {"SECONDS": 0})


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second, and are the first test's."""
    monkeypatch.setattr(report, "plot", lambda *_where: [])


def best(trials: Sequence[FrozenTrial]) -> FrozenTrial:
    return max(trials, key=lambda trial: (trial.value or 0, -trial.number))


# --- finding ----------------------------------------------------------------------------------------------


def test_a_study_finds_the_best_run_and_predict_would_take_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "learning-rate=log:1e-4:1e-1", "--search", "optimizer=adam,sgd"]
    assert place.sweep("--trials", "2", *search) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    trials = place.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    found = best(trials)
    run = runs.Run.open(place.paths.models, None)  # the latest
    assert run.name == f"{NAME}-{found.number}"
    assert run.result.validation_accuracy == found.value
    assert run.card.config.learning_rate == found.params["learning_rate"]
    assert run.card.config.optimizer == found.params["optimizer"]
    assert place.runs() == {run.name}
    lines = output.splitlines()
    first, second = [line for line in lines if line.startswith("trial ") and "best" in line]
    assert re.search(r"  1 of 2, 0:00:\d\d to go$", first) and second.endswith("  2 of 2")
    assert f"{found.value:.2f} %" in lines[lines.index("the best of 2 complete trials:") + 2]
    for plot in re.findall(r"^plot +(.*)$", output, re.MULTILINE):
        assert Path(plot).read_bytes().startswith(b"\x89PNG")
        assert Path(plot).parent == place.paths.models
    assert output.count("plot  ") == 2


def test_a_rerun_adds_only_what_is_missing(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", RATE, "--search", "cutout=int:0:8:4"]
    assert place.sweep("--trials", "4", *search) == 0
    first = place.trials()
    capsys.readouterr()
    assert place.sweep("--trials", "4", *search) == 0
    assert "best " not in capsys.readouterr().out.split("the best of")[0]
    assert place.trials() == first
    assert place.sweep("--trials", "12", *search) == 0
    assert place.trials()[:4] == first
    assert len(place.complete()) == 12
    output = capsys.readouterr().out
    assert re.search(r"^importances  learning_rate 0\.\d\d  cutout 0\.\d\d$", output, re.MULTILINE)
    assert math.log10(best(place.trials()).params["learning_rate"]) == pytest.approx(-2, abs=0.4)


def test_all_runs_are_kept_if_asked(calculated: None, place: Place) -> None:
    assert place.sweep("--trials", "3", "--search", RATE, "--keep") == 0
    assert all(Manifest.read(place.paths.models / f"{NAME}-{number}") for number in range(3))
    assert runs.latest(place.paths.models) == f"{NAME}-{best(place.trials()).number}"
    assert place.sweep("--trials", "3", "--search", RATE) == 0
    assert len(list(place.paths.models.glob("*/manifest.json"))) == 1


def test_the_same_values_are_trained_once(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.sweep("--trials", "4", "--search", "learning_rate=0.01,0.1", "--keep") == 0
    assert len(list(place.paths.models.glob("*/manifest.json"))) == 2
    assert len(place.complete()) == 4
    assert f"(run {NAME}-" in capsys.readouterr().out


# --- what goes wrong in a trial ---------------------------------------------------------------------------


def test_refused_combinations_are_pruned(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "cutmix=0,1", "--search", "ricap=0,0.3", "--search", "mixup=0,0.2", "--search", RATE]
    assert place.sweep("--trials", "5", *search) == 0
    refused = [trial for trial in place.trials() if trial.state == TrialState.PRUNED]
    assert refused
    mixing = [[trial.params[name] > 0 for name in ("cutmix", "ricap", "mixup")] for trial in refused]
    assert all(sum(used) > 1 for used in mixing)
    assert len(re.findall("refused: .* both mix whole images", capsys.readouterr().out)) == len(refused)
    assert len(place.complete()) == 5


def test_a_diverged_run_is_a_failed_trial_and_the_study_goes_on(
    no_plots: None, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = iter([1e30])

    def first_diverging(config: TrainConfig, *arguments: Any, **options: Any) -> runs.Run:
        steep = dataclasses.replace(config, learning_rate=next(rates, config.learning_rate), optimizer="sgd")
        return train.train(steep, *arguments, **options)

    monkeypatch.setattr(sweep, "train", first_diverging)
    assert place.sweep("--trials", "1", "--search", RATE) == 0
    assert [trial.state for trial in place.trials()] == [TrialState.FAIL, TrialState.COMPLETE]
    assert re.search(r"^trial 0  learning_rate=\S+  failed: .*no longer finite", capsys.readouterr().out, re.MULTILINE)
    assert place.runs() == {f"{NAME}-1"}


def test_failures_in_a_row_end_the_sweep_with_their_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverging(*_arguments: object, **_options: object) -> None:
        raise PipelineError("the loss is no longer finite")

    monkeypatch.setattr(sweep, "train", diverging)
    assert place.sweep("--trials", "9", "--search", RATE) == 1
    assert "4 trials failed in a row, the last one: the loss is no longer finite" in capsys.readouterr().err
    assert [trial.state for trial in place.trials()] == [TrialState.FAIL] * 4


# --- many workers -----------------------------------------------------------------------------------------


def test_two_workers_that_begin_at_once_share_the_study(place: Place) -> None:
    more = ["--trials", "7", "--search", RATE]
    workers = [place.begin(f"SECONDS = 0.3{CALCULATED}", *more) for _ in range(2)]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [(worker.returncode, errors) for worker, (_, errors) in zip(workers, outputs, strict=True)] == [(0, "")] * 2
    did = [re.findall(r"^trial (\d+) .* best ", output, re.MULTILINE) for output, _ in outputs]
    assert all(did)
    assert sorted(int(number) for numbers in did for number in numbers) == [t.number for t in place.complete()]
    assert len(place.complete()) == 7
    assert len({trial.params["learning_rate"] for trial in place.complete()}) == 7
    assert runs.latest(place.paths.models) == f"{NAME}-{best(place.complete()).number}"
    assert [path.parent.name for path in place.paths.models.glob("*/manifest.json")] == [
        runs.latest(place.paths.models)
    ]


DYING = """
import os, signal, sys
from pipeline import sweep
from pipeline.training import engine
load = engine.checkpoint.save
def dying(*arguments):
    load(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
engine.checkpoint.save = dying
"""


def test_a_killed_workers_trial_is_tried_again_and_goes_on_from_its_checkpoint(no_plots: None, place: Place) -> None:
    more = ["--trials", "1", "--search", RATE, "--heartbeat", "1", "--epochs", "2"]
    worker = place.begin(DYING, *more)
    worker.communicate(timeout=120)
    assert worker.returncode == -signal.SIGKILL
    folder = place.paths.models / f"{NAME}-0"
    row = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(row) == 1
    assert place.sweep(*more) == 0
    lost, again = place.trials()
    assert (lost.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == lost.params
    assert runs.latest(place.paths.models) == folder.name
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in rows] == [1, 2]
    assert rows[0] == row[0]  # with its times: the first epoch was not trained twice


def test_a_worker_that_died_before_its_first_heartbeat_blocks_nobody(calculated: None, place: Place) -> None:
    more = ["--search", RATE, "--heartbeat", "1"]
    assert place.sweep("--trials", "1", *more) == 0
    storage = optuna.storages.RDBStorage(f"sqlite:///{place.paths.models / 'sweeps.sqlite3'}")
    optuna.load_study(study_name=NAME, storage=storage).ask()
    storage.remove_session()
    storage.engine.dispose()
    assert place.sweep("--trials", "2", *more) == 0
    assert [trial.state.name for trial in place.trials()] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_an_interrupted_sweep_goes_on_with_the_same_trial(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = []

    def interrupted(config: TrainConfig, *_arguments: object, run_name: str, **_options: object) -> None:
        names.append((run_name, config))
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "train", interrupted)
    for _ in range(2):
        assert place.sweep("--trials", "2", "--search", RATE) == 130
        assert capsys.readouterr().err == "error: interrupted; run the same command again to go on\n"
    assert names[0] == names[1]
    assert names[0][0] == f"{NAME}-0"


def test_another_base_or_space_is_refused(calculated: None, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.sweep("--trials", "1", "--search", RATE) == 0
    assert place.sweep("--trials", "2", "--search", "learning_rate=0.1:1", "--epochs", "2") == 2
    message = capsys.readouterr().err
    assert "epochs: 1 -> 2" in message
    assert "--search learning_rate: log:0.001:0.1 -> 0.1:1.0" in message
    assert "choose another --name" in message
    assert len(place.trials()) == 1


# --- what is refused before anything is spent -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to search over"),
        (["--search", "learning_rat=0:1"], "the fields are model, validation"),
        (["--search", "optimizer=sgd,lion"], "'lion' is not one of adam, adamw, sgd, rmsprop"),
        (["--search", "model=rehearsal,resnet18"], "11,173,962 trainable parameters"),
        (["--search", RATE, "--device", "mps"], "--device mps: PyTorch finds none here"),
        (["--search", RATE, "--name", "../study"], "--name '../study': a name of letters"),
        (["--search", RATE, "--epochs", "0"], "--epochs 0: at least 1"),
        (["--search", RATE, "--trials", "0"], "--trials"),
        (["--search", RATE, "--storage", "me:hunter2@host"], "--storage: a database's URL"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    assert place.sweep(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hunter2" not in error
    assert not place.paths.models.exists()


def test_wrong_options_are_refused_without_pytorch_and_optuna(place: Place) -> None:
    script = "import sys; from pipeline import sweep; code = sweep.main(sys.argv[1:]); "
    script += "print({'torch', 'optuna'} & set(sys.modules)); sys.exit(code)"
    command = [sys.executable, "-c", script, *place.arguments("--search", "optimizer=lion")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "set()\n")


def test_missing_data_names_the_stage_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--processed", str(tmp_path / "none"), "--models", str(tmp_path / "models")]
    assert sweep.main(["--competition", "tiny", "--search", RATE, *folders]) == 3
    assert "python -m pipeline.preprocess --competition tiny" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_password_is_never_printed(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_STORAGE", "mysql+mysqldb://me:hunter2@localhost/sweeps")
    assert place.sweep("--search", RATE, "--debug") == 2
    output, errors = capsys.readouterr()
    assert "mysql+mysqldb://me:***@localhost/sweeps needs its driver" in errors
    assert "hunter2" not in output + errors


# --- the command that trains the best one -----------------------------------------------------------------


def parsed(command: str) -> TrainConfig:
    """The config that train makes of the command."""
    given = shlex.split(command)
    assert given[:3] == ["python", "-m", "pipeline.train"]
    values = dict(train.command.make_context("train", given[3:]).params)
    names = {"model", *cli_recipes.fields()}
    return cli_recipes.chosen(values["preset"], {name: values[name] for name in names})


def plan(preset: str, *searches: str, epochs: int | None = None, seed: int = 0) -> sweep.Plan:
    base = PRESETS[preset] if epochs is None else PRESETS[preset].with_epochs(epochs)
    return sweep.Plan(parse(dataclasses.replace(base, seed=seed), searches), Paths(), SLUG, NAME, 1)


def test_the_best_trial_is_trained_in_full_with_the_very_same_values() -> None:
    searches = [RATE, "decay_norms=true,false", "model=fast,wide", "cutout=int:0:8", "flip=none,alternating"]
    params = {"learning_rate": 0.1 / 3, "decay_norms": True, "model": "wide", "cutout": 4, "flip": "alternating"}
    command = sweep.train_command(plan("fast", *searches, epochs=2, seed=5), params)
    expected = parse(dataclasses.replace(PRESETS["fast"], seed=5), searches).config(params)
    assert parsed(command) == expected
    assert "--flip" not in command  # as the preset has it
    assert command.endswith("--competition tiny")


def test_searched_epochs_and_warmups_are_in_the_command() -> None:
    command = sweep.train_command(
        plan("fast", "epochs=int:1:30", "warmup_epochs=0:1"), {"epochs": 20, "warmup_epochs": 1.0}
    )
    assert (parsed(command).epochs, parsed(command).warmup_epochs) == (20, 1.0)
    command = sweep.train_command(plan("fast", "warmup_epochs=0:1", epochs=2), {"warmup_epochs": 0.5})
    whole = PRESETS["fast"].epochs
    assert (parsed(command).epochs, parsed(command).warmup_epochs) == (whole, whole / 4)  # a quarter of the run


def test_values_that_mean_nothing_are_left_out_of_the_command() -> None:
    searched = plan("fast", "momentum=0.8,0.95", "optimizer=sgd,adam")
    assert "--momentum" not in sweep.train_command(searched, {"momentum": 0.8, "optimizer": "adam"})
    assert parsed(sweep.train_command(searched, {"momentum": 0.8, "optimizer": "sgd"})).momentum == 0.8


def test_a_sweep_is_not_for_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sweep.main(["--search", RATE, "--processed", str(tmp_path), "--models", str(tmp_path)]) == 2
    assert "start the same command several times" in capsys.readouterr().err
