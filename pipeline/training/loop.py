"""The loop: epochs of steps, a validation and a checkpoint after each epoch.

Inside an epoch the host waits for the device only where Task.reports says so: on a GPU each wait costs.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import FrameType

from pipeline.console import Meter, duration
from pipeline.errors import Log
from pipeline.recipes import TrainConfig
from pipeline.store import runs
from pipeline.store.runs import CHECKPOINT, METRICS, TENSORBOARD, EpochRow
from pipeline.training import metrics
from pipeline.training import state as states
from pipeline.training.batches import TrainingImages
from pipeline.training.device import ALONE, Device, World
from pipeline.training.inference import EvaluationImages, evaluate
from pipeline.training.optim import learning_rate
from pipeline.training.state import State, diverged
from pipeline.training.step import Step

# --- Ctrl-C and SIGTERM: finish the step, save, then stop; a second one stops at once ----------------------


class Stopped(Exception):
    """The user asked to stop, and the step under way is finished."""


class StopRequest:
    """Whether the user has asked to stop."""

    requested = False

    def check(self, anywhere: Callable[[bool], bool] = bool) -> None:
        """Between two steps, where nothing is half done.

        Args:
            anywhere: tells from this process's request whether any process that trains along has one.

        Raises:
            Stopped: the user has asked for it.
        """
        if anywhere(self.requested):
            raise Stopped

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signals' handler."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block, SIGINT and SIGTERM only set the request.

    Python takes signals in its main thread only: elsewhere nothing is installed, and nothing is requested.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --- what the user sees: a line an epoch, and how the epoch under way stands -------------------------------


class Progress:
    """Reports on a run of `epochs` times `steps` of `images`, of which `done` steps are done already."""

    def __init__(self, log: Log, epochs: int, steps: int, images: int, done: int, *, shown: bool = True) -> None:
        self._epochs, self._steps, self._images = epochs, steps, images
        self._meter = Meter("train:", epochs * images, "images", log, done=done * images // steps, shown=shown)

    def steps(self, done: int, loss: float) -> None:
        """`done` steps of the run are done; `loss` is the epoch's mean so far."""
        note = f"epoch {-(-done // self._steps)}/{self._epochs}, loss {loss:.3f}"
        self._meter.update(done * self._images // self._steps, note)

    def epoch(self, rows: Sequence[EpochRow], last: bool) -> None:
        """One line for the last of the epochs that are done; `last` says that none follows."""
        row = rows[-1]
        self.line(
            f"epoch {row.epoch:>{len(str(self._epochs))}}/{self._epochs}  lr {row.rate:.2e}  "
            f"train {row.train_loss:.3f} {row.train_accuracy:.2f} %  "
            f"validation {row.validation_loss:.3f} {row.validation_accuracy:.2f} %  "
            f"{row.images_per_second:,.0f} images/s  {duration(row.seconds)}"
            + ("" if last else f", {duration(runs.seconds_left(rows, self._epochs))} to go")
        )

    def line(self, text: str) -> None:
        """A line that does not get mixed up with the bar."""
        self._meter.line(text)

    def close(self) -> None:
        """Take the bar away."""
        self._meter.close()


# --- the loop ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What to train on, and how; none of it changes."""

    config: TrainConfig
    training: TrainingImages
    validation: EvaluationImages
    device: Device
    folder: Path  # of the run
    card: str  # fingerprint of the run's card
    world: World = ALONE

    def reports(self, done: int) -> bool:
        """Whether to look at the loss after `done` steps of an epoch: always on a CPU, which never waits."""
        return self.device.torch_device.type == "cpu" or done % 50 == 0 or done == self.training.steps

    def ends(self, rows: Sequence[EpochRow]) -> bool:
        """Whether no epoch follows on these: all are done, or the last ones brought nothing (early stopping)."""
        patience = self.config.early_stopping
        stale = bool(rows) and len(rows) - runs.best_row(rows).epoch
        return len(rows) >= self.config.epochs or (patience > 0 and stale >= patience)


def fit(task: Task, state: State, step: Step, progress: Progress, board: metrics.Board | None = None) -> None:
    """Train from `state`, by `step`, to the last epoch, and show each one on `board`.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step under way is finished and saved.
        PipelineError: the loss or the weights are no longer finite; the last checkpoint is kept.
    """
    try:
        with stop_on_signals() as stop:
            while not task.ends(state.rows):
                try:
                    _train(task, state, step, progress, stop)
                    row = _validate(task, state, stop)
                except Stopped:
                    _save(task, state)
                    raise
                state.finish_epoch(row)
                _publish(task, state, board, progress)
    except Stopped:
        where = f"in epoch {state.epoch + 1} after step {state.step} of {task.training.steps}"
        progress.line(f"stopped {where}: the checkpoint is saved")
        raise KeyboardInterrupt from None


def open_board(task: Task, state: State, class_names: Sequence[str] = ()) -> metrics.Board:
    """TensorBoard's events; of a run that begins, first what the model is about to see."""
    fresh = not state.rows and not state.step
    board = metrics.Board(task.folder / TENSORBOARD, done=state.epoch, fresh=fresh)
    if fresh and class_names:
        # Drawn anew for the first epoch, to the same numbers: randomness has no state here (see batches.draw).
        board.batch(*task.training.batch(task.training.draw(0), 0), class_names)
    return board


def _train(task: Task, state: State, step: Step, progress: Progress, stop: StopRequest) -> None:
    """The rest of the epoch's steps."""
    training, world = task.training, task.world
    epoch = training.draw(state.epoch)
    state.model.train()
    started = perf_counter()
    try:
        while state.step < training.steps:
            whole = training.seen(state.step + 1) - training.seen(state.step)
            step(*training.batch(epoch, state.step, world.share), whole)
            if task.reports(state.step):
                loss = _finite_loss(state, world) / training.seen(state.step)
                progress.steps(state.updates, loss)
            if world.alone or task.reports(state.step):
                stop.check(lambda requested: world.any(requested, task.device.torch_device))
    finally:
        state.training_seconds += perf_counter() - started


def _finite_loss(state: State, world: World) -> float:
    """The epoch's loss summed over its images so far: one bad step is enough to spoil it, and is seen."""
    loss = world.total(state.loss_sum).item()
    if not math.isfinite(loss):
        raise diverged(state, "the loss is")
    return loss


def _validate(task: Task, state: State, stop: StopRequest) -> EpochRow:
    """Evaluate after the epoch's last step, and sum the epoch up."""
    state.require_finite()
    started = perf_counter()
    selected = state.select()
    task.world.take_first_buffers(selected)
    # Among several processes, one that stops midway would leave the others waiting for its share.
    before_batch = stop.check if task.world.alone else (lambda: None)
    try:
        score = evaluate(selected, task.validation, task.device, before_batch, task.world)
    finally:
        state.validation_seconds += perf_counter() - started
    rows = len(task.training)
    return EpochRow(
        epoch=state.epoch + 1,
        rate=learning_rate(task.config, state.updates - 1, task.training.steps),
        train_loss=task.world.total(state.loss_sum).item() / rows,
        train_accuracy=100 * task.world.total(state.correct).item() / rows,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
        images_per_second=rows / state.training_seconds,
        seconds=state.training_seconds + state.validation_seconds,
    )


def _publish(task: Task, state: State, board: metrics.Board | None, progress: Progress) -> None:
    """Write and tell what the finished epoch brought."""
    row = state.rows[-1]
    if task.world.first:
        runs.write_metrics(task.folder / METRICS, state.rows)
    if board is not None:
        board.add(row)
    _save(task, state)
    ended = task.ends(state.rows)
    progress.epoch(state.rows, ended)
    if ended and row.epoch < task.config.epochs:
        progress.line(f"stopped early: no better epoch than {runs.best_row(state.rows).epoch} since")


def _save(task: Task, state: State) -> None:
    """Save the checkpoint; with several processes the first does, with the sums of all."""
    state.loss_sum, state.correct = task.world.total(state.loss_sum), task.world.total(state.correct)
    if task.world.first:
        states.save(task.folder / CHECKPOINT, state, task.card)
    else:
        state.loss_sum.zero_()
        state.correct.zero_()
