"""One training run in its folder: start or resume it, and write the weights and the result."""

import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from pipeline.config import fingerprint
from pipeline.console import Meter, working
from pipeline.errors import Log
from pipeline.model import resnet
from pipeline.model.resnet import ResNet, whiten
from pipeline.model.summary import summarise
from pipeline.recipes import Compile, TrainConfig
from pipeline.store import atomic, runs
from pipeline.store.manifest import read_json
from pipeline.store.processed import Processed
from pipeline.store.runs import CHECKPOINT, EXECUTION, METRICS, RESULT, TENSORBOARD, WEIGHTS, RunCard, RunResult
from pipeline.training.batches import Split, TrainingImages
from pipeline.training.device import Device, World, device_advice, machine
from pipeline.training.inference import EvaluationImages, bf16_agreement, evaluate
from pipeline.training.loop import Task, fit
from pipeline.training.state import State, initial, load_checkpoint, start
from pipeline.training.step import TrainStep

WHITENING_SAMPLE = 5000  # images, as in Jordan (2024)


def run(
    card: RunCard, data: Processed, rows: Split, device: Device, folder: Path, log: Log, *,
    teachers: Sequence[ResNet], pseudo_labels: NDArray[np.int64] | None, world: World,
) -> None:  # fmt: skip
    """Train the run in `folder` on the `settled` device, from its checkpoint if there is one; write its files.

    `pseudo_labels`, (H,), add the test images.  Of several processes only the first writes and logs.

    Raises:
        KeyboardInterrupt: the user stopped it; the checkpoint is saved.
        PipelineError: it diverged, or the device is out of memory.
        BadData: the checkpoint is damaged.
    """
    config = card.config
    with device_advice(device, config.batch_size):
        with working("preparing the images", world.first):
            task = _task(card, data, rows, device, folder, world, pseudo_labels)
        with working("building the model", world.first):
            _write_execution(task, device)
            state = _begin(task, data, rows, log)
        _announce(task, state, log)

        images, done = config.epochs * len(task.training), task.training.seen(state.updates)
        # Purged: what an earlier session wrote after its last checkpoint.
        events = partial(SummaryWriter, str(folder / TENSORBOARD), purge_step=state.epoch + 1)
        with (
            events() if world.first else nullcontext() as board,
            Meter("train:", images, "img", log, done=done, shown=world.first) as meter,
        ):
            train_step = TrainStep(
                state, config, task.device, task.training.steps, teachers=teachers, world=world, log=log,
                uncompiled=lambda: _write_execution(task, replace(task.device, compiled=False)),
            )  # fmt: skip
            fit(task, state, train_step, meter, log, board)
            result = _result(task, state, data)
    if world.first:
        runs.write_metrics(folder / METRICS, state.rows)
        resnet.save(folder / WEIGHTS, state.best_weights, config.model)
        atomic.write_json(folder / RESULT, asdict(result))


def _task(
    card: RunCard, data: Processed, rows: Split, device: Device, folder: Path, world: World,
    pseudo_labels: NDArray[np.int64] | None,
) -> Task:  # fmt: skip
    """Move the images to the device."""
    on = device.torch_device
    images, labels = data.array("train_images"), data.array("train_labels")
    if rows.validation is None:
        validation = _test_batch(data, on)
    else:
        validation = EvaluationImages(images[rows.validation], labels[rows.validation], on)
    learned, known = images[rows.train], labels[rows.train]
    if pseudo_labels is not None:
        learned = np.concatenate([learned, data.array("hidden_images")])
        known = np.concatenate([known, pseudo_labels])
    training = TrainingImages(learned, known, card.config, on, world.size)
    return Task(card.config, training, validation, device, folder, fingerprint(card.to_dict()), world)


def _test_batch(data: Processed, device: torch.device) -> EvaluationImages:
    return EvaluationImages(data.array("test_images"), data.array("test_labels"), device)


# --- execution.json: how the run computes, so that it resumes in the same way -------------------------------


def settled(
    config: TrainConfig, images: int, device: Device, folder: Path | None, compile_: Compile, alone: bool
) -> Device:
    """The device with precision and compilation as the run in `folder` began, or by rule (see training.device).

    `compile_` overrides how it began, since a compiler may have turned out to be broken.  BadData if what it noted is
    damaged.
    """
    chosen = device.by_rule(summarise(config.model).macs, config.epochs * images, compile_, alone)
    if folder is not None and (path := folder / EXECUTION).is_file():
        begun = read_json(path, Device, "remove it, or train the run again with --force")
        # Drop bf16 if this processor would only emulate it.
        possible = begun.precision == "fp32" or device.precision == "bf16"
        if possible and begun.kind == chosen.kind:
            keeps = compile_ == "auto" and alone  # compiling fits one process
            chosen = replace(chosen, precision=begun.precision, compiled=begun.compiled if keeps else chosen.compiled)
    return chosen


def _write_execution(task: Task, device: Device) -> None:
    if task.world.first:
        values = {"device": device.kind, "precision": device.precision, "compiled": device.compiled}
        atomic.write_json(task.folder / EXECUTION, values)


# --- begin and end ----------------------------------------------------------------------------------------


def _begin(task: Task, data: Processed, rows: Split, log: Log) -> State:
    """The state of the run's checkpoint, or before the first step."""
    state = start(task.config, task.device, task.world, log)
    if (task.folder / CHECKPOINT).is_file():
        load_checkpoint(task.folder / CHECKPOINT, state, task.card_fingerprint)
    elif task.config.model.whitened:
        sample = data.array("train_images")[rows.train[:WHITENING_SAMPLE]]
        whiten(state.model, torch.from_numpy(sample).to(task.device.torch_device))
    if not task.world.first:
        state.loss_sum.zero_()
        state.correct.zero_()
    return state


def _announce(task: Task, state: State, log: Log) -> None:
    processes = "" if task.world.alone else f", {task.world.size} processes"
    images = f"{len(task.training):,} training and {len(task.validation):,} validation images"
    log(f"train: {images}; {task.device.description}{processes}, {task.device.precision}")
    if task.device.compiled:
        log("train: compiling takes 1 to 3 minutes (--compile no skips it)")
    if labels := task.config.pseudo_labels:
        log(f"train: the test set is among them, labelled by {labels}: the rules must allow that")
    if state.updates:
        log(f"train: resuming after {state.epoch} epochs and {state.step} steps")


def _result(task: Task, state: State, data: Processed) -> RunResult:
    """The run's result; a holdout that took no part in the selection is evaluated here, once."""
    best = runs.best_row(state.rows)
    selected = initial(task.config, task.device)
    selected.load_state_dict(state.best_weights)
    if task.config.validation == "test_batch":
        test, test_accuracy = task.validation, best.validation_accuracy
    else:
        test = _test_batch(data, task.device.torch_device)
        _, test_accuracy = evaluate(selected, test, task.device, world=task.world)
    agreement = bf16_agreement(selected, task.validation, task.device) if task.device.precision == "bf16" else None
    return RunResult(
        validation_set=task.config.validation,
        validation_accuracy=best.validation_accuracy,
        validation_loss=best.validation_loss,
        validation_rows=len(task.validation),
        test_accuracy=test_accuracy,
        test_rows=len(test),
        best_epoch=best.epoch,
        epochs=len(state.rows),
        last_validation_accuracy=state.rows[-1].validation_accuracy,
        trainable_parameters=task.config.model.trainable_parameters,
        images_per_second=statistics.median(row.images_per_second for row in state.rows),
        seconds=sum(row.seconds for row in state.rows),
        device=task.device.description,
        precision=task.device.precision,
        bf16_agreement=agreement,
        system=machine(),
    )
