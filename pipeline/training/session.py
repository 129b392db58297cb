"""One training run in its folder: begins or goes on, and ends with the weights and the result."""

import statistics
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import fingerprint
from pipeline.errors import Log
from pipeline.model import resnet
from pipeline.model.resnet import ResNet, whiten
from pipeline.model.summary import trainable_parameters
from pipeline.recipes import Compile
from pipeline.store import atomic, runs, submission_format
from pipeline.store.processed import Processed
from pipeline.store.runs import CHECKPOINT, METRICS, RESULT, WEIGHTS, RunCard, RunResult
from pipeline.store.submissions import written_by_predict
from pipeline.training import state
from pipeline.training.batches import Split, TrainingImages
from pipeline.training.calibration import settle
from pipeline.training.device import ALONE, Device, World, device_advice, machine, share_batch_norms
from pipeline.training.inference import EvaluationImages, bf16_agreement, evaluate
from pipeline.training.loop import Progress, Task, fit, open_board
from pipeline.training.metrics import Board
from pipeline.training.state import State, start
from pipeline.training.step import Teachers

WHITENING_SAMPLE = 5000  # images, as Jordan (2024) takes


def run(
    card: RunCard,
    data: Processed,
    rows: Split,
    device: Device,
    folder: Path,
    log: Log,
    *,
    compile_: Compile = "auto",
    teachers: Sequence[ResNet] = (),
    pseudo_labels: NDArray[np.int64] | None = None,
    world: World = ALONE,
) -> RunResult:
    """Train the run in `folder`, from its checkpoint if there is one; write weights, metrics and result.

    With `pseudo_labels`, (H,), it learns from the hidden images as well.

    Among several processes only the first writes and speaks; all see the same folder.

    Raises:
        KeyboardInterrupt: the user stopped it; the checkpoint is saved.
        PipelineError: it diverged, or the device has not enough memory.
        BadData: the checkpoint is damaged.
    """
    with device_advice(device, card.config.batch_size):
        task = _task(card, data, rows, device, folder, world, pseudo_labels)
        task = replace(task, device=_settled(task, compile_, log))
        if teachers:
            task = replace(task, teachers=Teachers(teachers, card.config.distillation_temperature, task.device))
        current = _begin(task, data, rows)
        _announce(task, current, log)
        with closing(open_board(task, current)) if world.first else nullcontext() as board:
            _fit(task, current, board, log)
            current.selected.load_state_dict(current.best_weights)
            result = _result(task, current, data)
            if board is not None:
                board.result(result.to_dict(), result.epochs)
    if world.first:
        runs.write(folder / METRICS, current.rows)
        resnet.save(folder / WEIGHTS, current.best_weights, card.config.model)
        atomic.write_json(folder / RESULT, result.to_dict())
    return result


def _task(
    card: RunCard, data: Processed, rows: Split, device: Device, folder: Path, world: World,
    pseudo_labels: NDArray[np.int64] | None,
) -> Task:  # fmt: skip
    """Bring the images to the device."""
    on = device.torch_device
    images, labels = data.array("train_images"), data.array("train_labels")
    if rows.validation is None:
        validation = EvaluationImages(data.array("test_images"), data.array("test_labels"), on)
    else:
        validation = EvaluationImages(images[rows.validation], labels[rows.validation], on)
    learned, known = images[rows.train], labels[rows.train]
    if pseudo_labels is not None:
        learned = np.concatenate([learned, data.array("hidden_images")])
        known = np.concatenate([known, pseudo_labels])
    training = TrainingImages(learned, known, card.config, on)
    return Task(
        card.config, training, validation, device, folder, fingerprint(card.to_dict()),
        world=world, class_names=data.class_names,
    )  # fmt: skip


def _settled(task: Task, compile_: Compile, log: Log) -> Device:
    """Precision and compilation: the first process measures, and the others read what it found."""
    steps = task.config.epochs * task.training.steps
    if task.world.first:
        settle(task.config, task.device, compile_, task.folder, steps, log)
    task.world.wait()
    return settle(task.config, task.device, compile_, task.folder, steps, log)


def _begin(task: Task, data: Processed, rows: Split) -> State:
    """Where the run's checkpoint stands, or before the first step."""
    current = start(task.config, task.device)
    if (task.folder / CHECKPOINT).is_file():
        state.load(task.folder / CHECKPOINT, current, task.card)
    elif task.config.model.whitened:
        sample = data.array("train_images")[rows.train[:WHITENING_SAMPLE]]
        whiten(current.network, torch.from_numpy(sample).to(task.device.torch_device))
    if not task.world.alone:
        share_batch_norms(current.network)
    if not task.world.first:
        current.loss_sum.zero_()
        current.correct.zero_()
    return current


def _announce(task: Task, current: State, log: Log) -> None:
    config, images, steps = task.config, len(task.training), task.training.steps
    parameters = trainable_parameters(current.network)
    log(f"run {task.folder.name}: model {config.model.name}, {parameters:,} trainable parameters")
    processes = "" if task.world.alone else f", {task.world.size} processes"
    compiled = ", compiled (the first step takes minutes)" if task.device.compiled else ""
    log(f"device {task.device.description}{processes}, precision {task.device.precision}{compiled}")
    log(
        f"{images:,} training images, {config.epochs} epochs of {steps} steps of {config.batch_size} images, "
        f"{config.epochs * steps:,} steps in all"
    )
    if config.pseudo_labels:
        log(f"the hidden images are among them, labelled by {config.pseudo_labels}: the rules must allow that")
    if config.validation == "test_batch":
        log(
            f"validation: the labelled test_batch ({len(task.validation):,} images), the paper's protocol. "
            "The best epoch is selected on it, so its accuracy is optimistic"
        )
    else:
        log(f"validation: {len(task.validation):,} of the training images, split off by class")
    if current.epoch or current.step:
        log(f"going on from the checkpoint: {current.epoch} epochs and {current.step} steps are done")


def _fit(task: Task, current: State, board: Board | None, log: Log) -> None:
    steps, images = task.training.steps, len(task.training)
    done = current.epoch * steps + current.step
    progress = Progress(log, task.config.epochs, steps, images, done, shown=task.world.first)
    try:
        fit(task, current, progress, board)
    finally:
        progress.close()


def _result(task: Task, current: State, data: Processed) -> RunResult:
    """The run's result; the network holds the best epoch's weights.

    A test_batch that took no part in the selection is evaluated here, once.
    """
    best = runs.best_row(current.rows)
    if task.config.validation == "test_batch":
        test, test_accuracy = task.validation, best.validation_accuracy
    else:
        on = task.device.torch_device
        test = EvaluationImages(data.array("test_images"), data.array("test_labels"), on)
        test_accuracy = evaluate(current.selected, test, task.device, world=task.world).accuracy
    # Where training computes in float32 because that was faster, predict may find the same.
    fast_bf16 = task.device.precision == "bf16"
    return RunResult(
        validation_set=task.config.validation,
        validation_accuracy=best.validation_accuracy,
        validation_loss=best.validation_loss,
        validation_rows=len(task.validation),
        test_accuracy=test_accuracy,
        test_rows=len(test),
        best_epoch=best.epoch,
        epochs=len(current.rows),
        last_validation_accuracy=current.rows[-1].validation_accuracy,
        trainable_parameters=trainable_parameters(current.network),
        images_per_second=statistics.median(row.images_per_second for row in current.rows),
        seconds=sum(row.seconds for row in current.rows),
        device=task.device.description,
        precision=task.device.precision,
        bf16_agreement=bf16_agreement(current.selected, task.validation, task.device) if fast_bf16 else None,
        system=machine(),
    )


# --- Learning from the hidden images with the labels that a CSV gives them (Lee 2013, "Pseudo-Label").


def identity(csv: Path, competition: str) -> str:
    """NAME.csv@ and the first digits of its sha256, for the run's config.

    Raises:
        MissingInput: it is not there.
        BadData: predict did not write it for the competition, or it was edited since.
    """
    _, record = written_by_predict(csv, competition)
    return f"{csv.name}@{record.sha256[:12]}"


def read(csv: Path, data: Processed) -> NDArray[np.int64]:
    """The labels of the hidden images (H,), in their order.

    Raises:
        BadData: the CSV is not of these hidden images.
    """
    return submission_format.validate(csv, np.asarray(data.array("hidden_ids"))).astype(np.int64)
