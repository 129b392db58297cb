"""The loop: epochs of steps, a validation and a checkpoint after each epoch.

Inside an epoch the host waits for the device only where Task.reports says so: on a GPU each wait costs.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from torch import Tensor, nn

from pipeline.recipes import TrainConfig
from pipeline.store.runs import CHECKPOINT, METRICS, TENSORBOARD
from pipeline.training import checkpoint, metrics
from pipeline.training.batches import TrainingImages, draw
from pipeline.training.device import Device
from pipeline.training.evaluation import EvaluationImages, evaluate, logits
from pipeline.training.interrupts import Stopped, StopRequest, stop_on_signals
from pipeline.training.progress import Progress
from pipeline.training.schedule import learning_rate
from pipeline.training.state import State, diverged


@dataclass(frozen=True)
class Task:
    """What to train on, and how; none of it changes."""

    config: TrainConfig
    training: TrainingImages
    validation: EvaluationImages
    device: Device
    folder: Path  # of the run
    card: str  # fingerprint of the run's card

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step; both counts are 0-based."""
        steps = self.training.steps
        warmup = self.config.warmup_epochs * steps
        return learning_rate(epoch * steps + step, self.config.epochs * steps, warmup, self.config.learning_rate)

    def reports(self, done: int) -> bool:
        """Whether to look at the loss after `done` steps of an epoch: always on a CPU, which never waits."""
        return self.device.torch_device.type == "cpu" or done % 50 == 0 or done == self.training.steps


def fit(task: Task, state: State, progress: Progress) -> None:
    """Train from `state` to the last epoch.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step under way is finished and saved.
        PipelineError: the loss or the weights are no longer finite; the last checkpoint is kept.
    """
    board = metrics.Board(task.folder / TENSORBOARD, done=state.epoch)
    try:
        with stop_on_signals() as stop:
            while state.epoch < task.config.epochs:
                _epoch(task, state, progress, board, stop)
    except Stopped:
        where = f"in epoch {state.epoch + 1} after step {state.step} of {task.training.steps}"
        progress.line(f"stopped {where}: the checkpoint is saved")
        raise KeyboardInterrupt from None
    finally:
        board.close()


def _epoch(task: Task, state: State, progress: Progress, board: metrics.Board, stop: StopRequest) -> None:
    """The rest of one epoch, its validation, and the checkpoint; also when the user stops it midway."""
    try:
        _train(task, state, progress, stop)
        row = _validate(task, state, stop)
    except Stopped:
        checkpoint.save(task.folder / CHECKPOINT, state, task.card)
        raise
    state.finish_epoch(row)
    metrics.write(task.folder / METRICS, state.rows)
    board.add(row)
    checkpoint.save(task.folder / CHECKPOINT, state, task.card)
    progress.epoch(row)


def _train(task: Task, state: State, progress: Progress, stop: StopRequest) -> None:
    """The rest of the epoch's steps."""
    config, steps = task.config, task.training.steps
    draws = draw(len(task.training), config, state.epoch).to(task.device.torch_device)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    state.network.train()
    started = perf_counter()
    try:
        while state.step < steps:
            rate = task.rate(state.epoch, state.step)
            images, labels = task.training.batch(draws, state.step)
            train_step(state, images, labels, rate, criterion, task.device)
            if task.reports(state.step):
                loss = finite_loss(state) / task.training.seen(state.step)
                progress.steps(state.epoch * steps + state.step, loss, rate)
            stop.check()
    finally:
        state.training_seconds += perf_counter() - started


def train_step(state: State, images: Tensor, labels: Tensor, rate: float, criterion: nn.Module, device: Device) -> None:
    """One step on uint8 images (B, 32, 32, 3) and labels (B,), all on the device; waits for nothing."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    output = logits(state.network, images, device)
    loss = criterion(output, labels)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.loss_sum += loss.detach() * len(labels)
    state.correct += (output.argmax(1) == labels).sum()
    state.step += 1


def finite_loss(state: State) -> float:
    """The epoch's loss summed over its images so far: one bad step is enough to spoil it, and is seen.

    Raises:
        PipelineError: it is infinite or not a number.
    """
    loss = state.loss_sum.item()
    if not math.isfinite(loss):
        raise diverged(state, "the loss is")
    return loss


def _validate(task: Task, state: State, stop: StopRequest) -> metrics.EpochRow:
    """Evaluate after the epoch's last step, and sum the epoch up."""
    state.require_finite()
    started = perf_counter()
    try:
        score = evaluate(state.network, task.validation, task.device, before_batch=stop.check)
    finally:
        state.validation_seconds += perf_counter() - started
    rows = len(task.training)
    return metrics.EpochRow(
        epoch=state.epoch + 1,
        rate=task.rate(state.epoch, state.step - 1),
        train_loss=state.loss_sum.item() / rows,
        train_accuracy=100 * state.correct.item() / rows,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
        images_per_second=rows / state.training_seconds,
        seconds=state.training_seconds + state.validation_seconds,
    )
