"""python -m pipeline.sweep: search training options for the best validation accuracy, with Optuna.

The same command joins the same study, on other machines with the same --storage, and resumes after an interruption.
The best run is kept; as a trial it is never the default of predict.
"""

import math
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import click
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback, Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline import cli, commands, console
from pipeline.config import Paths, fingerprint, single_process
from pipeline.errors import DeviceFailed, PipelineError, UsageError, printable
from pipeline.recipes import MODELS, PRESETS, Option, TrainConfig, flag, options
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest
from pipeline.store.processed import Processed
from pipeline.train import train

FORMS = "LOW:HIGH[:STEP], log:LOW:HIGH, or A,B,C"
STORAGE = "sweeps.sqlite3"  # below --models
RUN, REASON = "run", "reason"  # a trial's attributes: its run's name; why it has no accuracy
SEARCH = "pipeline"  # the study's attribute: what all its workers must agree on
RETRIES = 3  # of a trial whose worker died, perhaps because of it
LOCK_WAIT = 60  # seconds for other workers to finish writing
HOPELESS = 20  # failed trials in a row that end the sweep
TABLE_ROWS = 5  # trials in the table
EXHAUSTIBLE = 1000  # combinations of values, up to which each is tried once, in random order

Axis = FloatDistribution | IntDistribution | CategoricalDistribution  # the values of a field
Axes = Mapping[str, Axis]  # by the field of TrainConfig


# --- what is searched -------------------------------------------------------------------------------------


def parse(searches: Sequence[str]) -> Axes:
    """The command line's `--search FIELD=SPEC`; UsageError for an unknown or repeated field, or an invalid SPEC."""
    fields = {"model": Option(Literal[tuple(MODELS)], "", None), **options()}
    known = [name for name in fields if name not in commands.TAUGHT]  # a sweep has no teachers
    axes: dict[str, Axis] = {}
    for search in searches:
        name, _, spec = search.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known or name in axes:
            raise UsageError(f"--search {search}: name each field once; the fields are {', '.join(known)}")
        try:
            axes[name] = _distribution(fields[name], spec)
        except (ValueError, click.BadParameter) as error:
            raise UsageError(f"--search {search}: {getattr(error, 'message', error)} (SPEC is {FORMS})") from None
    return axes


def _distribution(option: Option, spec: str) -> Axis:
    """The values that `spec` names for an option; ValueError or BadParameter says what is wrong."""
    log, separator = spec.startswith("log:"), ":" if ":" in spec else ","
    of = cli.type_of(option)
    values = [of.convert(word.strip(), None, None) for word in spec.removeprefix("log:").split(separator)]
    for value in values if separator == "," else values[:2]:
        if option.allowed is not None and value not in option.allowed:
            raise ValueError(f"{value:g} is not {option.allowed}")
    if separator == ",":
        return CategoricalDistribution(list(dict.fromkeys(values)))
    if option.kind not in (int, float) or not 2 <= len(values) <= 3 or not math.isfinite(values[-1]):
        raise ValueError("a range has two ends, which are numbers")
    low, high, *step = values
    return (FloatDistribution if option.kind is float else IntDistribution)(low, high, log, *step)


def combinations(axes: Axes) -> float:
    """The number of different trials; infinite with a range of numbers without a step."""
    total = 1.0
    for axis in axes.values():
        if isinstance(axis, CategoricalDistribution):
            total *= len(axis.choices)
        else:
            total *= round((axis.high - axis.low) / axis.step) + 1 if axis.step else math.inf
    return total


def suggest(trial: Trial, name: str, axis: Axis) -> Any:
    """The value of a field in a trial."""
    if isinstance(axis, FloatDistribution):
        return trial.suggest_float(name, axis.low, axis.high, step=axis.step, log=axis.log)
    if isinstance(axis, IntDistribution):
        return trial.suggest_int(name, axis.low, axis.high, step=axis.step, log=axis.log)
    return trial.suggest_categorical(name, axis.choices)


def require_effect(axes: Axes, base: TrainConfig) -> None:
    """UsageError for a field that has no effect in any trial, or whose values cannot be compared."""
    for name, (other, values) in commands.BELONGS.items():
        if name in axes and other not in axes and (present := getattr(base, other)) not in values:
            raise UsageError(f"--search {name} belongs to {flag(other)} {' or '.join(values)}; this preset: {present}")
    if len(getattr(axes.get("validation"), "choices", ())) > 1:
        raise UsageError("--search validation: accuracies on different sets cannot be compared; name one set")


def train_command(base: TrainConfig, values: Mapping[str, Any], slug: str, paths: Paths) -> str:
    """Trains a trial's values over the preset's own epochs, unless epochs were searched; a warm-up keeps its share."""
    config = base.changed(values).with_epochs(values.get("epochs", PRESETS[base.preset].epochs))
    return commands.command("train", slug, paths, *commands.arguments(config))


# --- the study --------------------------------------------------------------------------------------------


def parse_url(storage: str) -> URL:
    """The URL of a database that workers can share, else UsageError, without its secrets."""
    with suppress(SQLAlchemyError, ValueError):  # their messages quote the URL, and so its password
        url = make_url(storage)
        if url.get_dialect().name != "sqlite" or url.database not in (None, "", ":memory:"):
            return url
    raise UsageError(f"--storage: wants the URL of a persistent database, such as sqlite:///data/models/{STORAGE}")


def shown(url: URL) -> str:
    """The URL without what may be secret: its password and its parameters."""
    return url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def database(url: URL, heartbeat: int) -> Iterator[RDBStorage]:
    """The database; a trial that misses two heartbeats, `heartbeat` seconds apart, is retried by others.

    Raises:
        UsageError: its driver is not installed.
        PipelineError: the database does not respond, now or later in the block.
    """
    sqlite = url.get_backend_name() == "sqlite"
    try:
        # Workers that start together must not create SQLite's tables twice.
        with atomic.lock(Path(str(url.database)), LOCK_WAIT) if sqlite else nullcontext():
            try:
                storage = RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs={"connect_args": {"timeout": LOCK_WAIT}} if sqlite else {"pool_pre_ping": True},
                    heartbeat_interval=heartbeat,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
                )
            except ImportError:
                raise UsageError(f"--storage {shown(url)}: install its driver, {url.get_driver_name()}") from None
        yield storage
        storage.remove_session()
    except (SQLAlchemyError, StorageInternalError) as error:
        # The driver's reason without the URL's secrets, which a traceback would show.
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", cause)).partition("\n")[0]
        for secret in filter(None, (url.password, *map(str, url.query.values()))):
            reason = reason.replace(str(secret), "***")
        raise PipelineError(
            f"the storage {shown(url)} fails ({printable(reason)}): run the same command again to resume"
        ) from None


def join(storage: RDBStorage, name: str, search: Mapping[str, Any], exhaust: bool) -> Study:
    """The study `name`, new or as other workers left it; UsageError says how its `search` differs.

    `exhaust`: try each combination once.
    """
    samplers = optuna.samplers  # without a seed: workers would draw the same values
    sampler = samplers.BruteForceSampler() if exhaust else samplers.TPESampler(constant_liar=True)
    study = optuna.create_study(
        storage=storage, study_name=name, sampler=sampler, direction="maximize", load_if_exists=True
    )
    if SEARCH not in study.user_attrs:
        study.set_user_attr(SEARCH, dict(search))
    old = study.user_attrs[SEARCH]
    if changes := [key for key in {**old, **search} if old.get(key) != search.get(key)]:
        differ = "; ".join(f"{key}: {old.get(key)} -> {search.get(key)}" for key in changes)
        raise UsageError(f"study {name} has other options ({differ}): repeat those, or choose another --name")
    return study


def ranking(study: Study) -> list[FrozenTrial]:
    """The complete trials, best first, ties oldest first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-float(trial.value or 0), trial.number))


# --- the stage --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """Runs trials of a study; several share one."""

    study: Study
    base: TrainConfig
    axes: Axes
    paths: Paths
    slug: str
    keep: bool  # all runs, not only the best
    device: str

    def work(self, trials: int) -> None:
        """Run trials until the study has `trials` complete ones, and report."""
        complete = len(ranking(self.study))
        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        tried = {str(trial.params) for trial in ended}  # also those that failed; if all did, it may not be their fault
        if not complete or (complete < trials and len(tried) < combinations(self.axes)):
            try:
                self.study.optimize(self._objective, callbacks=[self._after, MaxTrialsCallback(trials)])
            except ValueError as error:
                if "Cannot tell" not in str(error):  # Optuna's, of a trial that has ended already
                    raise
                # Perhaps this machine slept, or lost the storage.
                raise PipelineError("this worker missed its heartbeats: run the same command again") from error
        self._keep_best()
        if not (ranked := ranking(self.study)):
            failed = self.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
            reason = failed[-1].user_attrs[REASON] if failed else "another worker's runs still"
            raise PipelineError(f"no trial could be trained: {reason}")
        best = ranked[0]
        rows = [[str(t.number), f"{t.value:.2f}%", *map(_brief, t.params.values())] for t in ranked[:TABLE_ROWS]]
        table = "\n".join(console.table(["trial", "validation", *best.params], rows))
        console.show(f"\nthe best of {len(ranked)} complete trials:\n{table}")
        console.show(f"\nbest run     {best.user_attrs[RUN]}: best-of-N is biased upwards, confirm with new seeds")
        console.show(f"\nnext, in full: {train_command(self.base, best.params, self.slug, self.paths)}")

    def _objective(self, trial: Trial) -> float:
        """The best validation accuracy of the trial's run, in per cent."""
        values = {name: suggest(trial, name, axis) for name, axis in self.axes.items()}
        first = f"{self.study.study_name}-{trial.number}"
        names = chain([first], (f"{first}-{k}" for k in count(2)))
        free = next(name for name in names if not (self.paths.models / name).exists())
        name = trial.user_attrs.get(RUN, free)  # a retried trial has a name already, and resumes that run
        trial.set_user_attr(RUN, name)
        try:
            config = self.base.changed(values)
            # A trial is one line: what train says is in the run's metrics.jsonl too.
            run = train(
                config, self.paths, self.slug, run_name=name, device=self.device, log=lambda _line: None,
                trial=self.study.study_name,
            )  # fmt: skip
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, DeviceFailed) or not isinstance(error, PipelineError):  # not the options' fault
                self.study.enqueue_trial(trial.params, user_attrs={RUN: name})
                raise
            trial.set_user_attr(REASON, str(error))
            if not self.keep and not isinstance(error, UsageError):  # the folder may be another program's
                _remove(self.paths.models / name)
            raise optuna.TrialPruned from error
        trial.set_user_attr(RUN, name)  # raises if the trial was given to another worker meanwhile
        return run.result.validation_accuracy

    def _after(self, study: Study, trial: FrozenTrial) -> None:
        """Log how the trial ended, in one line."""
        line = f"trial {trial.number}  {' '.join(f'{name}={_brief(value)}' for name, value in trial.params.items())}"
        if trial.state == TrialState.COMPLETE:
            self._keep_best()
            best, *others = ranking(study)
            standing = f"best {best.value:.2f}% (trial {best.number})  {1 + len(others)} complete"
            console.log(f"{line}  {trial.value:.2f}%  {standing}")
            return
        console.log(f"{line}  failed: {trial.user_attrs[REASON]}")
        last = study.get_trials(deepcopy=False)[-HOPELESS:]
        if [other.state for other in last] == [TrialState.PRUNED] * HOPELESS:
            raise PipelineError(f"{HOPELESS} trials failed in a row, the last one: {trial.user_attrs[REASON]}")

    def _keep_best(self) -> None:
        """Remove the study's runs on this machine, except the best."""
        if self.keep:
            return
        models = self.paths.models
        # Workers that share the folder take turns, or one with an older view might remove a new best run.
        with atomic.lock(models / f"{self.study.study_name}.sweep", LOCK_WAIT):
            names = dict.fromkeys(trial.user_attrs[RUN] for trial in ranking(self.study))
            for name in [name for name in names if Manifest.read(models / name)][1:]:
                _remove(models / name)


def _remove(folder: Path) -> None:
    """Remove a trial's run, unless another process holds it or it holds other files."""
    with suppress(UsageError), atomic.lock(folder):
        if runs.is_trial(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _brief(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cli.stage_command(
    examples="""
python -m pipeline.sweep --preset fast --epochs 2 --search learning_rate=log:0.02:1
python -m pipeline.sweep --search weight_decay=log:1e-5:1e-2 --search optimizer=sgd,adamw
python -m pipeline.sweep --search cutout=0:16:4 --trials 40 --name cutout
python -m pipeline.sweep --search dropout=0:0.5 --storage postgresql://host/sweeps
"""
)
@cli.competition
@click.option("--preset", type=click.Choice(list(PRESETS)), default="fast", show_default=True,
              help="Preset that the trials start from.")  # fmt: skip
@click.option("--epochs", metavar="N", type=click.IntRange(min=1), help="Epochs per trial; warm-up in proportion.")
@click.option("--seed", metavar="N", type=int, help="Random seed of the trials.")
@click.option("--search", "searches", metavar="FIELD=SPEC", multiple=True, required=True,
              help=f"Option of train and its values, {FORMS}; may be repeated.")  # fmt: skip
@click.option("--trials", metavar="N", type=click.IntRange(min=1), default=20, show_default=True,
              help="Number of complete trials, all workers together.")  # fmt: skip
@click.option("--name", metavar="NAME", help="The study's name; by default made from its options.")
@click.option("--storage", metavar="URL", envvar="PIPELINE_STORAGE",
              help="Database of the study; or $PIPELINE_STORAGE, which hides a password; by default "
                   "sweeps.sqlite3 in --models.")  # fmt: skip
@click.option("--heartbeat", metavar="SECONDS", type=click.IntRange(min=1), default=60, show_default=True,
              help="Heartbeat; the trial of a worker that misses two is retried.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the folders of all runs, not only of the best.")
@cli.device
@cli.processed
@cli.models
def command(
    slug: str, preset: str, searches: Sequence[str], trials: int, name: str | None, storage: str | None,
    heartbeat: int, keep: bool, device: str, paths: Paths, **recipe: Any,
) -> None:  # fmt: skip
    """Search the options of training for the best validation accuracy.

    Run it again to resume, also on other machines: workers with the same storage share one study.
    """
    if not single_process():
        raise UsageError("a sweep is not for torchrun: start the same command several times, they share the study")
    base, axes = cli.recipe(preset, recipe), parse(searches)
    require_effect(axes, base)
    different = combinations(axes)
    trials = int(min(trials, different))
    url = parse_url(storage or f"sqlite:///{paths.models / STORAGE}")
    if name is not None:
        runs.check_name(name, "--name")
    data = Processed.open(paths.processed / slug)
    # PyTorch takes seconds to import: wrong options are refused before.
    from pipeline.training.device import choose  # noqa: PLC0415

    choose(device)
    for model in getattr(axes.get("model"), "choices", [base.model.name]):
        MODELS[model].require_within_limit()
    searched = {f"--search {field}": str(axis) for field, axis in axes.items()}
    search = {"competition": slug, "heartbeat": heartbeat, **base.to_dict(), **searched}
    name = name or f"{preset}-sweep-{fingerprint(search)[:8]}"  # so the same command finds the same study
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning), database(url, heartbeat) as opened:
        exhaust = different <= EXHAUSTIBLE
        study = join(opened, name, {"data": data.training_fingerprint, **search}, exhaust)
        console.log(f"study {name} in {shown(url)}: {trials} trials")
        if base.validation == "test_batch":
            console.log("validation: the holdout, so accuracies are optimistic (--search validation=split)")
        Worker(study, base, axes, paths, slug, keep, device).work(trials)


main = partial(cli.run, command, "sweep")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
