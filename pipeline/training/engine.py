"""The loop: epochs of steps, a validation and a checkpoint after each epoch.

Inside an epoch the host waits for the device only where Task.reports says so: on a GPU each wait costs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from pipeline.recipes import TrainConfig
from pipeline.store import epochs
from pipeline.store.runs import CHECKPOINT, METRICS, TENSORBOARD
from pipeline.training import checkpoint, metrics
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device
from pipeline.training.evaluation import EvaluationImages, evaluate
from pipeline.training.interrupts import Stopped, StopRequest, stop_on_signals
from pipeline.training.processes import ALONE, World
from pipeline.training.progress import Progress
from pipeline.training.schedule import learning_rate
from pipeline.training.state import State, diverged
from pipeline.training.step import Step
from pipeline.training.teachers import Teachers


@dataclass(frozen=True)
class Task:
    """What to train on, and how; none of it changes."""

    config: TrainConfig
    training: TrainingImages
    validation: EvaluationImages
    device: Device
    folder: Path  # of the run
    card: str  # fingerprint of the run's card
    teachers: Teachers | None = None
    world: World = ALONE
    class_names: Sequence[str] = ()  # for people

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step; both counts are 0-based."""
        steps, config = self.training.steps, self.config
        warmup = config.warmup_epochs * steps
        now, total = epoch * steps + step, config.epochs * steps
        return learning_rate(now, total, warmup, config.learning_rate, config.schedule)

    def reports(self, done: int) -> bool:
        """Whether to look at the loss after `done` steps of an epoch: always on a CPU, which never waits."""
        return self.device.torch_device.type == "cpu" or done % 50 == 0 or done == self.training.steps

    def ends(self, rows: Sequence[epochs.EpochRow]) -> bool:
        """Whether no epoch follows on these: all are done, or the last ones brought nothing (early stopping)."""
        patience = self.config.early_stopping
        stale = bool(rows) and len(rows) - epochs.best_row(rows).epoch
        return len(rows) >= self.config.epochs or (patience > 0 and stale >= patience)


def fit(task: Task, state: State, progress: Progress, board: metrics.Board | None = None) -> None:
    """Train from `state` to the last epoch, and show each one on `board`.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step under way is finished and saved.
        PipelineError: the loss or the weights are no longer finite; the last checkpoint is kept.
    """
    step = Step(state, task.config, task.device, task.teachers, task.world)
    try:
        with stop_on_signals() as stop:
            while not task.ends(state.rows):
                _epoch(task, state, step, progress, stop)
                _publish(task, state, board, progress)
    except Stopped:
        where = f"in epoch {state.epoch + 1} after step {state.step} of {task.training.steps}"
        progress.line(f"stopped {where}: the checkpoint is saved")
        raise KeyboardInterrupt from None


def open_board(task: Task, state: State) -> metrics.Board:
    """TensorBoard's events; of a run that begins, first what the network is about to see."""
    fresh = not state.rows and not state.step
    board = metrics.Board(task.folder / TENSORBOARD, done=state.epoch, fresh=fresh)
    if fresh and task.class_names:
        # Drawn anew for the first epoch, to the same numbers: randomness has no state here (see batches.draw).
        board.batch(*task.training.batch(task.training.draw(0), 0), task.class_names)
    return board


def _epoch(task: Task, state: State, step: Step, progress: Progress, stop: StopRequest) -> None:
    """The rest of one epoch and its validation; a checkpoint when the user stops it midway."""
    try:
        _train(task, state, step, progress, stop)
        row = _validate(task, state, stop)
    except Stopped:
        _save(task, state)
        raise
    state.finish_epoch(row)


def _publish(task: Task, state: State, board: metrics.Board | None, progress: Progress) -> None:
    """Write and tell what the finished epoch brought."""
    row = state.rows[-1]
    if task.world.first:
        epochs.write(task.folder / METRICS, state.rows)
    if board is not None:
        board.add(row)
    _save(task, state)
    ended = task.ends(state.rows)
    progress.epoch(row, ended)
    if ended and row.epoch < task.config.epochs:
        progress.line(f"stopped early: no better epoch than {epochs.best_row(state.rows).epoch} since")


def _save(task: Task, state: State) -> None:
    """Save the checkpoint; with several processes the first does, with the sums of all."""
    state.loss_sum, state.correct = task.world.total(state.loss_sum), task.world.total(state.correct)
    if task.world.first:
        checkpoint.save(task.folder / CHECKPOINT, state, task.card)
    else:
        state.loss_sum.zero_()
        state.correct.zero_()


def _train(task: Task, state: State, step: Step, progress: Progress, stop: StopRequest) -> None:
    """The rest of the epoch's steps."""
    steps, world = task.training.steps, task.world
    epoch = task.training.draw(state.epoch)
    state.network.train()
    started = perf_counter()
    try:
        while state.step < steps:
            rate = task.rate(state.epoch, state.step)
            images, targets = task.training.batch(epoch, state.step)
            step(images, targets, rate)
            if task.reports(state.step):
                loss = finite_loss(state, world) / task.training.seen(state.step)
                progress.steps(state.epoch * steps + state.step, loss)
            if world.alone or task.reports(state.step):
                stop.check(lambda requested: world.any(requested, task.device.torch_device))
    finally:
        state.training_seconds += perf_counter() - started


def finite_loss(state: State, world: World = ALONE) -> float:
    """The epoch's loss summed over its images so far: one bad step is enough to spoil it, and is seen.

    Raises:
        PipelineError: it is infinite or not a number.
    """
    loss = world.total(state.loss_sum).item()
    if not math.isfinite(loss):
        raise diverged(state, "the loss is")
    return loss


def _validate(task: Task, state: State, stop: StopRequest) -> epochs.EpochRow:
    """Evaluate after the epoch's last step, and sum the epoch up."""
    state.require_finite()
    started = perf_counter()
    # Among several processes, one that stops midway would leave the others waiting for its share.
    before_batch = stop.check if task.world.alone else _nothing
    try:
        score = evaluate(state.select(), task.validation, task.device, before_batch, task.world)
    finally:
        state.validation_seconds += perf_counter() - started
    rows = len(task.training)
    return epochs.EpochRow(
        epoch=state.epoch + 1,
        rate=task.rate(state.epoch, state.step - 1),
        train_loss=task.world.total(state.loss_sum).item() / rows,
        train_accuracy=100 * task.world.total(state.correct).item() / rows,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
        images_per_second=rows / state.training_seconds,
        seconds=state.training_seconds + state.validation_seconds,
    )


def _nothing() -> None:
    """Between two batches of a validation that must not stop."""
