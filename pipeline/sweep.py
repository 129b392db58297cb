"""python -m pipeline.sweep: searches the options of training for the best validation accuracy, with optuna.

The same command, also on other machines with the same --storage, joins the same study and helps; after an
interruption it goes on.  The best run is kept, and predict takes it by default.
"""

import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from filelock import FileLock

from pipeline import cli, cli_recipes, commands
from pipeline.config import Paths, fingerprint
from pipeline.errors import Log, PipelineError, UsageError
from pipeline.recipes import MODELS, PRESETS, TrainConfig
from pipeline.search.space import Choice, Space
from pipeline.search.specs import FORMS, parse
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest
from pipeline.store.processed import Processed
from pipeline.train import train

if TYPE_CHECKING:
    from optuna import Study

STORAGE = "sweeps.sqlite3"  # below --models


@dataclass(frozen=True)
class Plan:
    """What to search, on which data, and how."""

    space: Space
    paths: Paths
    slug: str
    name: str  # of the study
    trials: int  # complete ones, of all workers together
    heartbeat: int = 60  # seconds
    keep: bool = False  # every run, not only the best
    device: str = "auto"


def sweep(plan: Plan, storage: str, log: Log = cli.log) -> None:
    """Join the study, run trials until it has as many complete ones as planned, and report.

    Raises:
        UsageError: a network is over the budget, the device is missing, or the study was begun with other
            options.  Nothing has been trained then.
        MissingInput: preprocess has not finished.
        PipelineError: several trials in a row failed, or the storage does not answer.
        KeyboardInterrupt: the user stopped it; the trial under way goes on when the command is run again.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a sweep is not for torchrun: start the same command several times, they share the study")
    data = Processed.open(plan.paths.processed / plan.slug)
    _check_machine(plan)
    from pipeline.search import study as studies  # noqa: PLC0415
    from pipeline.search.worker import Worker  # noqa: PLC0415

    with studies.quiet(), studies.opened(storage, plan.heartbeat) as database:
        memory = _memory(plan, data.training_fingerprint)
        study = studies.join(database, plan.name, memory, plan.space.base.seed)
        log(f"study {plan.name} in {studies.shown(database.engine.url)}: {plan.trials} trials")
        if plan.space.base.validation == "test_batch":
            log("validation: the labelled test_batch, so accuracies are optimistic (--search validation=split)")
        Worker(
            database, study, plan.space, plan.trials, plan.heartbeat,
            train=lambda config, name: _accuracy(plan, config, name),
            tidy=lambda: _tidy(plan, study),
            log=log,
        ).work()  # fmt: skip
        _tidy(plan, study)
        _report(plan, study, log)


def _check_machine(plan: Plan) -> None:
    """Find what every trial would stumble over, while nothing is spent."""
    # PyTorch takes seconds to import: wrong options are refused before.
    from pipeline.model.summary import check_parameter_limit  # noqa: PLC0415
    from pipeline.training.device import choose  # noqa: PLC0415

    choose(plan.device)
    models = [plan.space.base.model]
    for axis in plan.space.axes:
        if axis.field == "model" and isinstance(axis, Choice):
            models = [MODELS[str(name)] for name in axis.values]
    for model in models:
        check_parameter_limit(model)


def _memory(plan: Plan, data: str) -> dict[str, Any]:
    """What all workers of a study must agree on."""
    search = {f"--search {axis.field}": axis.spec for axis in plan.space.axes}
    return {"competition": plan.slug, "data": data, "heartbeat": plan.heartbeat, **plan.space.base.to_dict(), **search}


def _accuracy(plan: Plan, config: TrainConfig, name: str) -> float:
    """The best validation accuracy of a run in per cent; a run that failed is removed."""
    try:
        # A trial is one line: what train says is in the run's metrics.jsonl too.
        run = train(config, plan.paths, plan.slug, run_name=name, device=plan.device, log=lambda _line: None)
    except UsageError:
        raise  # nothing was written, and the folder may be another worker's
    except PipelineError:
        if not plan.keep:
            _remove(plan.paths.models / name)
        raise
    return run.result.validation_accuracy


def _tidy(plan: Plan, study: "Study") -> None:
    """Point LATEST to the best of the study's runs that are on this machine, and remove the others."""
    from pipeline.search.study import ranking  # noqa: PLC0415
    from pipeline.search.worker import RUN  # noqa: PLC0415

    models = plan.paths.models
    models.mkdir(parents=True, exist_ok=True)
    # Workers that share the folder take turns: one with an older view of the study would remove a new best.
    with FileLock(models / f".{plan.name}.sweep.lock"):
        names = dict.fromkeys(trial.user_attrs[RUN] for trial in ranking(study))
        here = [name for name in names if Manifest.read(models / name)]
        if here:
            runs.point_latest(models, here[0])
        if not plan.keep:
            for name in here[1:]:
                _remove(models / name)


def _remove(folder: Path) -> None:
    """Remove a run, unless somebody is at work on it just now."""
    with suppress(UsageError), atomic.lock(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _report(plan: Plan, study: "Study", log: Log) -> None:
    from pipeline.search import report  # noqa: PLC0415
    from pipeline.search.study import ranking  # noqa: PLC0415
    from pipeline.search.worker import RUN  # noqa: PLC0415

    trials = ranking(study)
    best = trials[0]
    log(f"\nthe best of {len(trials)} complete trials:")
    for line in report.table(trials):
        log(line)
    log("")
    if shares := report.importances(study, plan.space):
        log(f"importances  {'  '.join(f'{name} {share:.2f}' for name, share in shares.items())}")
    log(f"best run     {best.user_attrs[RUN]}: the best of many validation accuracies is a little lucky")
    for path in report.plot(study, plan.space, plan.paths.models / plan.name):
        log(f"plot         {path}")
    log(f"\nnext, in full: {train_command(plan, best.params)}")


def train_command(plan: Plan, params: dict[str, Any]) -> str:
    """The command that trains a trial's values over the preset's own epochs, unless epochs were searched.

    A warm-up that was searched keeps its share of the epochs.
    """
    epochs = params.get("epochs", PRESETS[plan.space.base.preset].epochs)
    config = plan.space.config(params).with_epochs(epochs)
    places = commands.places("train", plan.slug, plan.paths)
    return shlex.join(["python", "-m", "pipeline.train", *cli_recipes.arguments(config), *places])


@cli.stage_command(
    examples="""
python -m pipeline.sweep --preset fast --epochs 2 --search learning_rate=log:0.02:1
python -m pipeline.sweep --search weight_decay=log:1e-5:1e-2 --search optimizer=sgd,adamw
python -m pipeline.sweep --search cutout=int:0:16:4 --trials 40 --name cutout
python -m pipeline.sweep --search dropout=0:0.5 --storage postgresql://host/sweeps
"""
)
@cli.competition
@click.option("--preset", type=click.Choice(list(PRESETS)), default="fast", show_default=True,
              help="What the trials begin with.")  # fmt: skip
@click.option("--epochs", metavar=cli.WHOLE, type=int, help="Of each trial; the warm-up keeps its share.")
@click.option("--seed", metavar=cli.WHOLE, type=int, help="Of the trials' training, and of the search.")
@click.option("--search", "searches", metavar="FIELD=SPEC", multiple=True,
              help=f"Any option of train, and its values: {FORMS}; may be repeated.")  # fmt: skip
@click.option("--trials", metavar=cli.WHOLE, type=click.IntRange(min=1), default=20, show_default=True,
              help="Complete ones, of all workers together.")  # fmt: skip
@click.option("--name", metavar="NAME", help="The study's name; by default made from its options.")
@click.option("--storage", metavar="URL", envvar="PIPELINE_STORAGE",
              help="Database of the study; or $PIPELINE_STORAGE, which hides a password; by default "
                   "sweeps.sqlite3 in --models.")  # fmt: skip
@click.option("--heartbeat", metavar="SECONDS", type=click.IntRange(min=1), default=Plan.heartbeat, show_default=True,
              help="Signs of life; a worker without two of them is dead, and its trial tried again.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the folders of all runs, not only of the best.")
@cli.device
@cli.processed
@cli.models
def command(
    slug: str,
    trials: int,
    name: str | None,
    storage: str | None,
    heartbeat: int,
    keep: bool,
    device: str,
    processed: Path,
    models: Path,
    **search: Any,
) -> None:
    """Search the options of training for the best validation accuracy.

    Run it again to go on, and on as many machines as there are: workers with the same storage share one study.
    """
    plan = Plan(_space(**search), Paths(processed=processed, models=models), slug, "", trials, heartbeat, keep, device)
    plan = dataclasses.replace(plan, name=default_name(plan) if name is None else check_name(name))
    sweep(plan, storage or f"sqlite:///{models / STORAGE}")


def _space(preset: str, epochs: int | None, seed: int | None, searches: Sequence[str]) -> Space:
    base = PRESETS[preset] if epochs is None else PRESETS[preset].with_epochs(epochs)
    return parse(base if seed is None else dataclasses.replace(base, seed=seed), searches)


def check_name(name: str) -> str:
    """A study's name, which begins the names of its runs.

    Raises:
        UsageError: it cannot be a part of a folder's name.
    """
    try:
        return runs.check_name(name)
    except UsageError as error:
        raise UsageError(str(error).replace("--run", "--name")) from None


def default_name(plan: Plan) -> str:
    """The same options find the same study again."""
    return f"{plan.space.base.preset}-sweep-{fingerprint(_memory(plan, ''))[:8]}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "sweep", argv)


if __name__ == "__main__":
    sys.exit(main())
