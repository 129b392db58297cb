"""python -m pipeline.train: data/processed/SLUG -> data/models/RUN (weights, config, metrics, result).

The same options find the same run again: a complete one is left as it is, an interrupted one goes on.
PyTorch is imported only where something is left to train.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from pipeline import cli, commands
from pipeline.config import Paths
from pipeline.console import duration
from pipeline.errors import Log, UsageError
from pipeline.recipes import Compile, TrainConfig
from pipeline.store import runs
from pipeline.store.manifest import Manifest
from pipeline.store.processed import Processed, training_fingerprint
from pipeline.store.runs import Run, RunCard, claimed, complete, default_name, require_same

OVER = "over the parameter limit: its predictions cannot be submitted"


def train(
    config: TrainConfig,
    paths: Paths,
    slug: str,
    *,
    run_name: str | None = None,
    device: str = "auto",
    teachers: Sequence[str] = (),
    pseudo_labels: Path | None = None,
    allow_over_limit: bool = False,
    compile_: Compile = "auto",
    force: bool = False,
    log: Log = cli.log,
) -> Run:
    """Train on the processed arrays of `slug`, or go on, or find the run complete; make it the latest.

    Without `run_name` the run is named by its preset and the fingerprint of its card.  Inside a process group,
    or under torchrun, all processes train one run together.

    Args:
        teachers: finished runs whose probabilities the network learns as well.
        pseudo_labels: a CSV of predict's, whose labels of the hidden images it learns as well.
        allow_over_limit: allow a model over the parameter limit; nothing it predicts can be submitted.

    Raises:
        UsageError: the network is over the budget, the batch larger than the training set, the device
            missing, or the run exists with other options.  Nothing has been written then.
        MissingInput: preprocess has not finished, or there is no such teacher.
        BadData: a teacher was trained on other data.
        PipelineError: training diverged, the device has not enough memory, or another process ended.
        KeyboardInterrupt: the user stopped it; the checkpoint is saved.
    """
    if run_name is not None:
        runs.check_name(run_name)
    if len(set(teachers)) < len(teachers):
        raise UsageError("--teacher: a run is named twice, and would count twice")
    taught_by = [Run.open(paths.models, name) for name in sorted(teachers)]  # their order means nothing
    config = dataclasses.replace(config, teachers=tuple(f"{t.name}@{t.weights_sha256[:12]}" for t in taught_by))
    if pseudo_labels is not None:
        from pipeline.training import session as labelled  # noqa: PLC0415

        config = dataclasses.replace(config, pseudo_labels=labelled.identity(pseudo_labels, slug))
    first = _reports()
    log = log if first else _silent
    run = None if force else _finished(config, paths, slug, run_name)
    if run is None:
        job = _Job(config, paths, slug, run_name, device, taught_by, pseudo_labels, allow_over_limit, compile_, force)
        run = _train(job, log)
    else:
        log(f"run {run.name} is complete already: nothing to train (--force trains it anew)")
    if first:
        runs.point_latest(paths.models, run.name)
    _report(run, log)
    return run


def _reports() -> bool:
    """Whether this process is the only one, or the first of those that train together; without importing PyTorch."""
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        return bool(group.get_rank() == 0)
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class _Job:
    """The arguments of `train`."""

    config: TrainConfig
    paths: Paths
    slug: str
    run_name: str | None
    device: str
    teachers: Sequence[Run]
    pseudo_labels: Path | None
    allow_over_limit: bool
    compile_: Compile
    force: bool


def _train(job: _Job, log: Log) -> Run:
    """Check everything that can be checked, then train in the run's folder."""
    # PyTorch takes seconds to import, and a complete run gets by without it.
    from pipeline.model.summary import check_parameter_limit  # noqa: PLC0415
    from pipeline.training import device, session, step  # noqa: PLC0415
    from pipeline.training.batches import split  # noqa: PLC0415
    from pipeline.training.device import choose  # noqa: PLC0415

    if not job.allow_over_limit:
        check_parameter_limit(job.config.model)
    chosen = choose(job.device)
    data = Processed.open(job.paths.processed / job.slug)
    rows = split(data.array("train_labels"), job.config)
    card = RunCard(job.slug, data.training_fingerprint, job.config)
    labels = None if job.pseudo_labels is None else session.read(job.pseudo_labels, data)
    networks = [step.network(run, card) for run in job.teachers]
    name = job.run_name or default_name(card)
    folder = job.paths.models / name
    with device.join(chosen.torch_device) as world, claimed(folder, card, job.force, world.first):
        world.wait()  # until the folder is as it should be
        session.run(
            card, data, rows, chosen, folder, log,
            compile_=job.compile_, teachers=networks, pseudo_labels=labels, world=world,
        )  # fmt: skip
        if world.first:
            complete(folder, card)
        world.wait()
    return Run.open(job.paths.models, name)


def _silent(_message: str) -> None:
    """What the processes after the first say."""


def _finished(config: TrainConfig, paths: Paths, slug: str, run_name: str | None) -> Run | None:
    """The run of these options, if it is complete.

    Raises:
        UsageError: a run of this name has other options.
    """
    data = Manifest.read(paths.processed / slug)
    if data is None:
        return None
    card = RunCard(slug, training_fingerprint(data), config)
    name = run_name or default_name(card)
    require_same(paths.models / name, card)
    return Run.open(paths.models, name) if Manifest.read(paths.models / name) else None


def _report(run: Run, log: Log) -> None:
    result = run.result
    flattered = " (optimistic: the best epoch was selected on it)" if result.optimistic else ""
    source = f"test_batch{flattered}" if result.optimistic else "split off the training images"
    spent, last = duration(result.seconds), result.last_validation_accuracy
    for line in (
        "",
        f"run         {run.name}",
        f"validation  {result.validation_accuracy:.2f} %  {result.validation_rows:,} images, {source}",
        f"test        {result.test_accuracy:.2f} %  {result.test_rows:,} images, test_batch{flattered}",
        f"best epoch  {result.best_epoch} of {result.epochs} (the last: {last:.2f} %)",
        f"time        {spent}  {result.images_per_second:,.0f} images/s, {result.device}, {result.precision}",
        f"weights     {run.folder / runs.WEIGHTS}",
        "",
        *([] if result.submittable else [OVER]),
    ):
        log(line)


@cli.stage_command(
    """
python -m pipeline.train                            the paper's network and recipe, 80 epochs
python -m pipeline.train --preset fast              for a laptop or a free notebook
python -m pipeline.train --preset best              the most accurate, up to an hour of a GPU
python -m pipeline.train --epochs 1 --device cpu    one epoch, on the CPU
python -m pipeline.train --seed 1 --run second      another seed, under a name of its own
python -m pipeline.train --optimizer sgd --learning-rate 0.1 --cutmix 1 --ema-decay 0.999
python -m pipeline.train --preset fast --teacher A B C      learn from three finished runs as well
python -m pipeline.train --pseudo-labels submissions/sub.csv --rules-allow-pseudo-labels
torchrun --nproc_per_node=2 -m -- pipeline.train    one run on two GPUs, or in two processes on CPUs
""",
    cli.RECIPE_GROUPS,
)
@cli.competition
@cli.recipe_options
@click.option("--teacher", "teachers", metavar="RUN...", multiple=True, help="Finished runs to learn from as well.")
@click.option("--pseudo-labels", metavar="CSV", type=cli.FILE,
              help="A CSV of predict's: learn from the hidden images with its labels as well.")  # fmt: skip
@click.option("--rules-allow-pseudo-labels", is_flag=True,
              help="Say that you have read the rules, and that they allow --pseudo-labels.")  # fmt: skip
@click.option("--allow-over-limit", is_flag=True,
              help="Train a model over the parameter limit; it cannot be submitted.")  # fmt: skip
@cli.run_name("The run's name; by default made from its options.")
@click.option("--compile", "compile_", type=click.Choice(get_args(Compile)), default="auto", show_default=True,
              help="Compile the network; auto does where the run is long enough to gain from it.")  # fmt: skip
@cli.device
@cli.processed
@cli.models
@cli.force
@click.option("--dry-run", is_flag=True, help="Check the options, and stop.")
def command(
    slug: str,
    preset: str,
    teachers: tuple[str, ...],
    pseudo_labels: Path | None,
    allow_over_limit: bool,
    run_name: str | None,
    compile_: Compile,
    device: str,
    processed: Path,
    models: Path,
    force: bool,
    dry_run: bool,
    **recipe: Any,
) -> None:
    """Train a network on the preprocessed images.

    An interrupted run goes on when the same command is run again; Ctrl-C saves first.
    """
    if (pseudo_labels is not None) != recipe.pop("rules_allow_pseudo_labels"):
        raise UsageError(
            "--pseudo-labels CSV and --rules-allow-pseudo-labels go together: the competition's rules do not say "
            "whether a network may learn from the hidden images"
        )
    config = cli.recipe(preset, recipe, taught=bool(teachers))
    if run_name is not None:
        runs.check_name(run_name)
    if dry_run:
        return
    paths = Paths(processed=processed, models=models)
    run = train(
        config, paths, slug, run_name=run_name, device=device, teachers=teachers, pseudo_labels=pseudo_labels,
        allow_over_limit=allow_over_limit, compile_=compile_, force=force,
    )  # fmt: skip
    if run.result.submittable and _reports():
        following = commands.command("predict", slug, paths, "--out", str(paths.submissions / "sub.csv"))
        commands.announce(following, cli.log, os.environ)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "train", cli.spread(sys.argv[1:] if argv is None else argv, "--teacher"))


if __name__ == "__main__":
    sys.exit(main())
