"""Stage 3: data/processed/SLUG -> data/models/RUN (weights, config, metrics, result).

    python -m pipeline.train --preset fast

The same options find the same run: a complete one is kept, an interrupted one resumes.
PyTorch is imported only if something is left to train.
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, get_args

import click
import numpy as np

from pipeline import cli, commands, console
from pipeline.config import Paths, single_process
from pipeline.console import duration, working
from pipeline.errors import BadData, Log, MissingInput, UsageError
from pipeline.recipes import Compile, TrainConfig
from pipeline.store import runs, submission_format, submissions
from pipeline.store.manifest import Manifest
from pipeline.store.processed import Processed
from pipeline.store.runs import EpochRow, Run, RunCard, claimed, complete, default_name, require_same


@dataclass(frozen=True)
class Plan:
    """What a command trains, and where."""

    card: RunCard
    data: Processed
    folder: Path  # of the run
    teachers: Sequence[Run]
    pseudo_labels: Path | None
    force: bool  # start over

    @property
    def begun(self) -> bool:
        """Whether there is a run to resume."""
        return not self.force and (self.folder / runs.CONFIG).is_file()


def train(
    config: TrainConfig, paths: Paths, slug: str, *, run_name: str | None = None, device: str = "auto",
    teachers: Sequence[str] = (), pseudo_labels: Path | None = None, allow_over_limit: bool = False,
    compile_: Compile = "auto", force: bool = False, log: Log = console.log, trial: str = "",
) -> Run:  # fmt: skip
    """Train on the processed arrays of `slug`, resume, or find the run complete; make it the latest run.

    The default name is the preset and the fingerprint of the card.  In a process group or under torchrun all processes
    train one run.  `teachers` are finished runs, `pseudo_labels` a CSV of predict's.  `trial` is the sweep that it is
    a trial of; a trial is never the latest run.

    Raises:
        UsageError: the model is over the limit (and not `allow_over_limit`), the batch larger than the training
            set, the device missing, or the run exists with other options.  Nothing is written then.
        MissingInput: preprocess has not finished, or a teacher is missing.
        BadData: a teacher was trained on other data, or the CSV was not written by predict.
        PipelineError: training diverged, the device is out of memory, or another process ended.
        KeyboardInterrupt: the user stopped it; the checkpoint is saved.
    """
    (plan,) = _plans(
        config, run_name, paths=paths, slug=slug, teachers=teachers, pseudo_labels=pseudo_labels, force=force,
        trial=trial,
    )  # fmt: skip
    return _finished(plan, device, allow_over_limit, compile_, log)


def _finished(plan: Plan, device: str, allow_over_limit: bool, compile_: Compile, log: Log) -> Run:
    _train(plan, device, allow_over_limit, compile_, log)
    models, name = plan.folder.parent, plan.folder.name
    if _is_main_process() and not plan.card.trial:
        runs.point_latest(models, name)
    return Run.open(models, name)


def _plans(
    config: TrainConfig, run_name: str | None, seeds: Sequence[int] = (), *, paths: Paths, slug: str,
    teachers: Sequence[str], pseudo_labels: Path | None, force: bool, trial: str = "",
) -> list[Plan]:  # fmt: skip
    """One run, or one per seed: NAME-sSEED, or (without `force`) the run that has these options, whatever its name."""
    if len(set(teachers)) < len(teachers):
        raise UsageError("--teacher: a run is named twice")
    opened = [Run.open(paths.models, name) for name in sorted(teachers)]  # their order means nothing
    config = dataclasses.replace(config, teachers=tuple(f"{run.name}@{run.weights_sha256[:12]}" for run in opened))
    if pseudo_labels is not None:
        try:
            digest = submissions.local_csv(pseudo_labels, slug).sidecar.csv_sha256
        except submissions.NotOurs as error:
            raise BadData(f"--pseudo-labels: {error}; name a CSV that predict wrote") from error
        config = dataclasses.replace(config, pseudo_labels=f"{pseudo_labels}@{digest[:12]}")
    data = Processed.open(paths.processed / slug)
    card = RunCard(slug, data.training_fingerprint, config, trial)
    base = run_name or default_name(card)
    named = _seeded(card, base, run_name, seeds, paths.models, force) if seeds else {base: card}
    plans = [Plan(each, data, paths.models / runs.check_name(name), opened, pseudo_labels, force)
             for name, each in named.items()]  # fmt: skip
    if not force:
        for plan in plans:
            require_same(plan.folder, plan.card)
    return plans


def _seeded(
    card: RunCard, base: str, run_name: str | None, seeds: Sequence[int], models: Path, force: bool
) -> dict[str, RunCard]:
    """The cards of the seeds' runs, by their names."""
    cards, finished, named = runs.cards(models), runs.finished(models), {}
    for seed in dict.fromkeys(seeds):
        each = dataclasses.replace(card, config=dataclasses.replace(card.config, seed=seed))
        names = [f"{base}-s{seed}", run_name or default_name(each), *finished]
        same = (name for name in names if cards.get(name) == each)
        named[names[0] if force else next(same, names[0])] = each
    return named


def _is_main_process() -> bool:
    """Whether this is the only or the first process, without importing PyTorch."""
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        return bool(group.get_rank() == 0)
    return os.environ.get("RANK", "0") == "0"


def _train(
    plan: Plan, device_name: str, allow_over_limit: bool, compile_: Compile, log: Log, preview: bool = False
) -> None:
    """Check everything, then train in the run's folder; with `preview`, only show what that would be."""
    log = log if _is_main_process() else lambda _: None
    if plan.begun and Manifest.read(plan.folder):
        log(f"train: run {plan.folder.name} is complete, nothing to do (--force trains it again)")
        return
    card, data, folder = plan.card, plan.data, plan.folder
    model = card.config.model
    log(f"train: run {folder.name}, model {model.name}, {model.trainable_parameters:,} parameters")
    with working("loading PyTorch", _is_main_process()):  # a complete run needs none
        from pipeline.training import device, inference, session  # noqa: PLC0415
        from pipeline.training.batches import split  # noqa: PLC0415

    with working("loading the images", _is_main_process()):
        if not allow_over_limit:
            model.require_within_limit()
        if compile_ == "yes" and not single_process():
            raise UsageError("--compile yes: only a single process compiles; leave --compile out")
        chosen = device.choose(device_name, log)
        rows = split(data.array("train_labels"), card.config)
        labels = None
        if plan.pseudo_labels is not None:
            hidden_ids = np.asarray(data.array("hidden_ids"))
            labels = submission_format.validate(plan.pseudo_labels, hidden_ids).astype(np.int64)
        models = [inference.load_teacher(run, card) for run in plan.teachers]
    with device.join(chosen.torch_device, card.config.batch_size) as world:
        images = len(rows.train) + (0 if labels is None else len(labels))
        begun = folder if plan.begun else None
        chosen = session.settled(card.config, images, chosen, begun, compile_, world.alone)
        if preview:
            if world.first:
                how = f"{chosen.precision}{', compiled' if chosen.compiled else ''}"
                _preview(plan, images, chosen.description, how)
            return
        with claimed(folder, card, plan.force, log) if world.first else nullcontext():
            world.wait()  # until the folder is ready
            session.run(card, data, rows, chosen, folder, log, teachers=models, pseudo_labels=labels, world=world)
            if world.first:
                complete(folder, card)
            world.wait()


def _preview(plan: Plan, images: int, device: str, how: str) -> None:
    """Show what a command would train: `images` per epoch, on the `device`, and `how`."""
    from pipeline.model.summary import summarise  # noqa: PLC0415

    config, folder = plan.card.config, plan.folder
    rows = runs.read_metrics(folder / runs.METRICS) if plan.begun else []
    fresh = "replaces what is there" if folder.exists() else "new"
    where = f"goes on, {len(rows)} epochs are done" if plan.begun else fresh
    macs = summarise(config.model).macs
    console.show(f"""run         {folder}: {where}
recipe      {shlex.join(commands.in_full(config))}
model       {config.model.name}: {config.model.trainable_parameters:,} trainable parameters, {macs:,} MACs per image
images      {images:,} in each epoch
device      {device}, precision {how}
time        {_estimate(plan, rows, images * macs, device)}
dry run: nothing was trained or written""")


def _estimate(plan: Plan, rows: Sequence[EpochRow], macs: int, device: str) -> str:
    """The time for the epochs after `rows` on `device`, with `macs` each, from finished epochs or runs."""
    from pipeline.model.summary import summarise  # noqa: PLC0415

    epochs = plan.card.config.epochs
    if rows:
        return f"about {duration(runs.seconds_left(rows, epochs))} to go, as its last epochs took"
    with suppress(MissingInput, BadData):
        run = Run.open(plan.folder.parent, None)
        if run.result.device == device and run.result.images_per_second:
            seconds = epochs * macs / (run.result.images_per_second * summarise(run.card.config.model).macs)
            return f"about {duration(seconds)}, by the speed of run {run.name}"
    return "unknown: no run has finished on this device yet"


def _report(run: Run) -> str:
    result = run.result
    return "\n".join([
        f"{run.folder}: best epoch {result.best_epoch} of {result.epochs}, in {duration(result.seconds)}",
        f"validation {result.validation_accuracy:.2f}%   holdout {result.test_accuracy:.2f}%"
        + " (optimistic: the best epoch was selected on it)" * result.optimistic,
        *["over the parameter limit: its predictions cannot be submitted"] * (not result.submittable),
    ])  # fmt: skip


def _summary(finished: Sequence[Run]) -> str:
    """Mean and standard deviation over several runs."""

    def average(accuracies: Sequence[float]) -> str:
        return f"{mean(accuracies):.2f}%" + (f" ± {stdev(accuracies):.2f}" if len(accuracies) > 1 else "")

    seeds = ", ".join(str(run.card.config.seed) for run in finished)
    validation = average([run.result.validation_accuracy for run in finished])
    holdout = average([run.result.test_accuracy for run in finished])
    return f"mean of seeds {seeds}: validation {validation}   holdout {holdout}"


@cli.stage_command(
    """
python -m pipeline.train                            the paper's model and recipe, 80 epochs
python -m pipeline.train --preset fast              for a laptop or a free notebook
python -m pipeline.train --preset best              for a GPU; not measured yet
python -m pipeline.train --epochs 1 --device cpu    one epoch, on the CPU
python -m pipeline.train --seed 1 --run second      another seed, under its own name
python -m pipeline.train --seeds 0 1 2 --run mine   three seeds: mine-s0, mine-s1 and mine-s2
python -m pipeline.train --optimizer sgd --learning-rate 0.1 --cutmix 1 --ema-decay 0.999
python -m pipeline.train --preset fast --teacher A B C      distil three finished runs
python -m pipeline.train --pseudo-labels submissions/sub.csv --rules-allow-pseudo-labels
torchrun --nproc_per_node=2 -m -- pipeline.train    one run on two GPUs, or as two CPU processes
""",
    cli.RECIPE_GROUPS,
)
@cli.competition
@cli.recipe_options
@click.option("--seeds", metavar="N...", type=click.IntRange(0, 2**31 - 1), multiple=True,
              help="Train one run per seed, RUN-sN, one after the other; a seed you already trained alone is "
              "reused, under its own name.")  # fmt: skip
@click.option("--teacher", "teachers", metavar="RUN...", multiple=True, help="Finished runs to distil from.")
@click.option("--pseudo-labels", metavar="CSV", type=cli.FILE,
              help="Train on the test set, too, with the labels of this CSV, which predict wrote.")  # fmt: skip
@click.option("--rules-allow-pseudo-labels", is_flag=True,
              help="Confirm that the rules allow --pseudo-labels.")  # fmt: skip
@cli.run_name("The run's name; by default made from its options.")
@click.option("--allow-over-limit", is_flag=True,
              help="Train a model over the parameter limit; it cannot be submitted.")  # fmt: skip
@click.option("--compile", "compile_", type=click.Choice(get_args(Compile)), default="auto", show_default=True,
              help="Compile the model; auto: on CUDA, if one process runs long enough to gain from it.")  # fmt: skip
@cli.device
@cli.processed
@cli.models
@cli.force
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be trained, and stop.")
def command(
    slug: str, preset: str, teachers: tuple[str, ...], pseudo_labels: Path | None,
    run_name: str | None, allow_over_limit: bool, compile_: Compile, device: str, paths: Paths,
    force: bool, dry_run: bool, **recipe: Any,
) -> None:  # fmt: skip
    """Train a model on the preprocessed images.

    Ctrl-C saves; rerun the same command to resume.
    """
    if (pseudo_labels is not None) != recipe.pop("rules_allow_pseudo_labels"):
        raise UsageError(
            "--pseudo-labels CSV and --rules-allow-pseudo-labels go together: check the competition's rules"
        )
    if (seeds := recipe.pop("seeds")) and (recipe["seed"] is not None or not single_process()):
        raise UsageError("--seeds goes neither with --seed nor with torchrun: name all seeds, one process trains them")
    config = cli.recipe(preset, recipe, taught=bool(teachers))
    if run_name is not None:
        runs.check_name(run_name)
    if dry_run and commands.SCRIPT in os.environ:  # before anything is downloaded
        if not allow_over_limit:
            config.model.require_within_limit()
        return
    plans = _plans(
        config, run_name, seeds, paths=paths, slug=slug, teachers=teachers, pseudo_labels=pseudo_labels, force=force
    )
    if dry_run:
        for plan in plans:
            _train(plan, device, allow_over_limit, compile_, console.log, preview=True)
        return
    finished = []
    for plan in plans:
        finished.append(run := _finished(plan, device, allow_over_limit, compile_, console.log))
        if _is_main_process():
            console.show(_report(run))
    if _is_main_process():
        if seeds:
            runs.point_latest(paths.models, *(run.name for run in finished))
            console.show(_summary(finished))
        if run.result.submittable:
            cli.announce("predict", slug, paths, *(["--run", *(run.name for run in finished)] if seeds else []))


main = partial(cli.run, command, "train")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
