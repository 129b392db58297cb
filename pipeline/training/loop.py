"""The loop: epochs of steps, a validation and a checkpoint after each epoch.

Within an epoch the host waits for the device only once in 50 steps, since a wait costs time on a GPU.
"""

import math
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import FrameType

from torch.utils.tensorboard import SummaryWriter

from pipeline.console import Meter, duration, scientific
from pipeline.errors import Log
from pipeline.recipes import TrainConfig
from pipeline.store import runs
from pipeline.store.runs import CHECKPOINT, METRICS, EpochRow
from pipeline.training.batches import TrainingImages
from pipeline.training.device import ALONE, Device, World
from pipeline.training.inference import EvaluationImages, evaluate
from pipeline.training.optim import learning_rate
from pipeline.training.state import State, diverged, save_checkpoint
from pipeline.training.step import TrainStep


class Stopped(Exception):
    """The user asked to stop, between two steps."""


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Within the block, the first SIGINT or SIGTERM only sets the event; a second one stops at once."""
    stop = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield stop
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Task:
    """What to train on, and how; constant."""

    config: TrainConfig
    training: TrainingImages
    validation: EvaluationImages
    device: Device
    folder: Path  # of the run
    card_fingerprint: str
    world: World = ALONE

    def ends(self, rows: Sequence[EpochRow]) -> bool:
        """Whether training ends after these epochs: all are done, or early stopping."""
        patience = self.config.early_stopping
        stale = len(rows) - runs.best_row(rows).epoch if rows else 0
        return len(rows) >= self.config.epochs or (patience > 0 and stale >= patience)


def fit(
    task: Task, state: State, train_step: TrainStep, meter: Meter, log: Log, board: SummaryWriter | None = None
) -> None:
    """Train from `state` to the last epoch, with each epoch on `board`; `meter` counts images.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the current step is finished and saved.
        PipelineError: the loss or the weights are no longer finite; the last checkpoint is kept.
    """
    with stop_on_signals() as stop:
        while not task.ends(state.rows):
            try:
                _train(task, state, train_step, meter, stop)
                row = _validate(task, state, stop)
            except Stopped:
                _save(task, state)
                where = f"in epoch {state.epoch + 1} after step {state.step} of {task.training.steps}"
                log(f"stopped {where}: the checkpoint is saved")
                raise KeyboardInterrupt from None
            state.finish_epoch(row)
            if task.world.first:
                runs.write_metrics(task.folder / METRICS, state.rows)
            if board is not None:
                add_events(board, row)
            _save(task, state)
            log(epoch_line(state.rows, task.config.epochs))
    if len(state.rows) < task.config.epochs:
        log(f"stopped early: no better epoch than {runs.best_row(state.rows).epoch} since")


def add_events(board: SummaryWriter, row: EpochRow) -> None:
    """Write one epoch's TensorBoard events to disk."""
    for name, value in asdict(row).items():
        if name != "epoch":
            board.add_scalar(re.sub("^(train|validation)_", r"\1/", name), value, row.epoch)
    board.flush()


def epoch_line(rows: Sequence[EpochRow], epochs: int) -> str:
    """The line for the last of these epochs, of `epochs` in all."""
    row, left = rows[-1], runs.seconds_left(rows, epochs)
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  lr {scientific(row.rate)}  "
        f"train loss {row.train_loss:.3f} acc {row.train_accuracy:.1f}%  "
        f"val loss {row.validation_loss:.3f} acc {row.validation_accuracy:.1f}%  "
        f"{row.images_per_second:,.0f} img/s  {duration(left)} left"
    )


def _train(task: Task, state: State, train_step: TrainStep, meter: Meter, stop: threading.Event) -> None:
    """The rest of the epoch's steps."""
    training, world = task.training, task.world
    epoch = training.draw(state.epoch)
    state.model.train()
    started = perf_counter()
    try:
        while state.step < training.steps:
            whole = training.seen(state.step + 1) - training.seen(state.step)
            train_step(*training.batch(epoch, state.step, world.share), whole)
            # A CPU has no such wait.
            reports = task.device.kind == "cpu" or state.step % 50 == 0 or state.step == training.steps
            if reports:
                loss = world.total(state.loss_sum).item() / training.seen(state.step)
                if not math.isfinite(loss):  # summed over the epoch, so one bad step shows
                    raise diverged(state, "the loss is")
                note = f"epoch {state.epoch + 1}/{task.config.epochs}, loss {loss:.3f}"
                meter.update(training.seen(state.updates), note)
            if (world.alone or reports) and world.any(stop.is_set(), task.device.torch_device):
                raise Stopped
    finally:
        state.training_seconds += perf_counter() - started


def _validate(task: Task, state: State, stop: threading.Event) -> EpochRow:
    """Evaluate after the epoch's last step, and summarise the epoch."""
    state.require_finite()
    started = perf_counter()
    selected = state.select()
    task.world.take_first_buffers(selected)

    def check() -> None:
        # A process that stopped midway would leave the others waiting.
        if task.world.alone and stop.is_set():
            raise Stopped

    loss, accuracy = evaluate(selected, task.validation, task.device, check, task.world)
    rows = len(task.training)
    return EpochRow(
        epoch=state.epoch + 1,
        rate=learning_rate(task.config, state.updates - 1, task.training.steps),
        train_loss=task.world.total(state.loss_sum).item() / rows,
        train_accuracy=100 * task.world.total(state.correct).item() / rows,
        validation_loss=loss,
        validation_accuracy=accuracy,
        images_per_second=rows / state.training_seconds,
        seconds=state.training_seconds + perf_counter() - started,
    )


def _save(task: Task, state: State) -> None:
    """Save the checkpoint; of several processes the first one, with the sums of all."""
    state.loss_sum, state.correct = task.world.total(state.loss_sum), task.world.total(state.correct)
    if task.world.first:
        save_checkpoint(task.folder / CHECKPOINT, state, task.card_fingerprint)
    else:
        state.loss_sum.zero_()
        state.correct.zero_()
