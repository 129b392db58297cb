"""python -m pipeline.train: data/processed/SLUG -> data/models/RUN (weights, config, metrics, result).

The same options find the same run again: a complete one is left as it is, an interrupted one goes on.
PyTorch is imported only where something is left to train.
"""

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from pipeline import cli
from pipeline.config import Paths, fingerprint
from pipeline.errors import Say, UsageError
from pipeline.recipes import MODELS, PRESETS, TrainConfig
from pipeline.store import atomic, runs
from pipeline.store.manifest import Manifest, records, versions
from pipeline.store.processed import Processed, training_fingerprint
from pipeline.store.runs import Run, RunCard

NEXT = "python -m pipeline.predict --out submissions/sub.csv"


def train(
    config: TrainConfig,
    paths: Paths,
    slug: str,
    *,
    run_name: str | None = None,
    device: str = "auto",
    force: bool = False,
    say: Say = cli.say,
) -> Run:
    """Train on the processed arrays of `slug`, or go on, or find the run complete; make it the latest.

    Without `run_name` the run is named by its preset and the fingerprint of its card.

    Raises:
        UsageError: the network is over the budget, the batch larger than the training set, the device
            missing, or the run exists with other options.  Nothing has been written then.
        MissingInput: preprocess has not finished.
        PipelineError: training diverged, or the device has not enough memory.
        KeyboardInterrupt: the user stopped it; the checkpoint is saved.
    """
    if run_name is not None:
        runs.check_name(run_name)
    run = None if force else _finished(config, paths, slug, run_name)
    if run is None:
        run = _train(config, paths, slug, run_name, device, force, say)
    else:
        say(f"run {run.name} is complete already: nothing to train (--force trains it anew)")
    runs.point_latest(paths.models, run.name)
    _report(run, say)
    return run


def _train(
    config: TrainConfig, paths: Paths, slug: str, run_name: str | None, device: str, force: bool, say: Say
) -> Run:
    """Check everything that can be checked, then train in the run's folder."""
    # PyTorch takes seconds to import, and a complete run gets by without it.
    from pipeline.model.summary import check_budget  # noqa: PLC0415
    from pipeline.training import session  # noqa: PLC0415
    from pipeline.training.device import choose  # noqa: PLC0415
    from pipeline.training.split import split  # noqa: PLC0415

    check_budget(config.model)
    chosen = choose(device)
    data = Processed.open(paths.processed / slug)
    rows = split(data.array("train_labels"), config)
    card = RunCard(slug, data.training_fingerprint, config)
    name = run_name or default_name(card)
    folder = paths.models / name
    with atomic.lock(folder):
        if force:
            _discard(folder)
        _require_same(folder, card)
        atomic.write_json(folder / runs.CONFIG, card.to_dict())
        session.run(card, data, rows, chosen, folder, say)
        _complete(folder, card)
    return Run.open(paths.models, name)


def default_name(card: RunCard) -> str:
    """The preset, and enough of the card's fingerprint to tell other options or data apart."""
    return f"{card.config.preset}-{fingerprint(card.to_dict())[:8]}"


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
    _require_same(paths.models / name, card)
    return Run.open(paths.models, name) if Manifest.read(paths.models / name) else None


def _require_same(folder: Path, card: RunCard) -> None:
    """Refuse to go on with a run that has other options.

    Raises:
        UsageError: naming the options that differ.
    """
    if not (folder / runs.CONFIG).is_file():
        return
    old, new = _flat(RunCard.read(folder).to_dict()), _flat(card.to_dict())
    if changes := [f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]:
        raise UsageError(
            f"run {folder.name} exists with other options ({'; '.join(changes)}): choose another name with "
            "--run, or train it anew with `python -m pipeline.train --force` and these options"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"config": {"epochs": 3}} -> {"config.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _discard(folder: Path) -> None:
    """Remove a run.  It is renamed first: a kill must not leave a part of it to go on with."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
        shutil.rmtree(old)


def _complete(folder: Path, card: RunCard) -> None:
    """Write the manifest, which makes the run complete."""
    names = (runs.CONFIG, runs.WEIGHTS, runs.METRICS, runs.RESULT)
    Manifest(
        stage="train",
        files=records(folder, [folder / name for name in names]),
        inputs={"data": card.data},
        versions=versions("torch", "numpy", "safetensors", "scikit-learn"),
    ).write(folder)


def _report(run: Run, say: Say) -> None:
    result = run.result
    flattered = " (optimistic: the best epoch was selected on it)" if result.optimistic else ""
    source = f"test_batch{flattered}" if result.optimistic else "split off the training images"
    spent = timedelta(seconds=round(result.seconds))
    last = result.last_validation_accuracy
    for line in (
        "",
        f"run         {run.name}",
        f"validation  {result.validation_accuracy:.2f} %  {result.validation_rows:,} images, {source}",
        f"test        {result.test_accuracy:.2f} %  {result.test_rows:,} images, test_batch{flattered}",
        f"best epoch  {result.best_epoch} of {result.epochs} (the last: {last:.2f} %)",
        f"time        {spent}  {result.images_per_second:.0f} images/s, {result.device}, {result.precision}",
        f"weights     {run.folder / runs.WEIGHTS}",
        "",
        f"next: {NEXT}",
    ):
        say(line)


@cli.stage_command(
    examples="""
python -m pipeline.train                            the paper's network and recipe, 80 epochs
python -m pipeline.train --epochs 1 --device cpu    one epoch, on the CPU
python -m pipeline.train --preset rehearsal         a small network, minutes on two cores
python -m pipeline.train --seed 1 --run second      another seed, under a name of its own
"""
)
@cli.competition
@click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True,
              help="Network and recipe.")  # fmt: skip
@click.option("--model", "model_name", type=click.Choice(list(MODELS)), help="Another network than the preset's.")
@click.option("--epochs", type=int, help="Passes over the training images; the warm-up keeps its share.")
@click.option("--batch-size", type=int, help="Images a step.")
@click.option("--seed", type=int, help="Of initialisation, order, augmentation and split.")
@click.option("--run", "run_name", metavar="RUN", help="The run's name; by default made from its options.")
@cli.device
@cli.processed
@cli.models
@cli.force
@click.option("--dry-run", is_flag=True, help="Check the options, and stop.")
def command(
    slug: str,
    preset: str,
    model_name: str | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    run_name: str | None,
    device: str,
    processed: Path,
    models: Path,
    force: bool,
    dry_run: bool,
) -> None:
    """Train a network on the preprocessed images.

    An interrupted run goes on when the same command is run again; Ctrl-C saves first.
    """
    config = PRESETS[preset]
    if epochs is not None:
        config = config.with_epochs(epochs)
    chosen: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    if model_name is not None:
        chosen["model"] = MODELS[model_name]
    config = dataclasses.replace(config, **{key: value for key, value in chosen.items() if value is not None})
    if run_name is not None:
        runs.check_name(run_name)
    if dry_run:
        return
    paths = Paths(processed=processed, models=models)
    train(config, paths, slug, run_name=run_name, device=device, force=force)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "train", argv)


if __name__ == "__main__":
    sys.exit(main())
