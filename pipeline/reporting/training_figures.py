"""The paper's figures, from metrics.jsonl: the rate's schedule, accuracy and loss by epoch."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.gap.contact_sheets import LOCAL
from pipeline.recipes import TrainConfig
from pipeline.reporting.theme import INK, MUTED, TRAIN, Drawn, blank
from pipeline.store.epochs import EpochRow, best_row
from pipeline.training.schedule import learning_rate

FINE = 20  # points of the planned schedule an epoch


def draw(rows: Sequence[EpochRow], config: TrainConfig) -> list[Drawn]:
    """The three figures; `rows` may be those of a run that is still being trained, but not empty."""
    return [_rate(rows, config), _accuracy(rows, config), _loss(rows, config)]


def _rate(rows: Sequence[EpochRow], config: TrainConfig) -> Drawn:
    figure = blank()
    axes = figure.subplots()
    planned = config.epochs * FINE
    epochs = [step / FINE for step in range(planned + 1)]
    warmup, peak = config.warmup_epochs * FINE, config.learning_rate
    rates = [learning_rate(step, planned, warmup, peak, config.schedule) for step in range(planned)]
    axes.plot(epochs[1:], rates, color=MUTED, linewidth=1, linestyle="dotted", label="planned")
    axes.plot([r.epoch for r in rows], [r.rate for r in rows], color=LOCAL, marker=_marker(rows), label="run")
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
    _finish(axes, config)
    highest = max(rows, key=lambda row: row.rate)
    words = (
        f"Learning rate at the end of each epoch: at most {highest.rate:.2e}, in epoch {highest.epoch}; "
        f"{rows[-1].rate:.2e} in epoch {rows[-1].epoch} of {config.epochs}."
    )
    return Drawn("rate", "Learning rate", words, figure)


def _accuracy(rows: Sequence[EpochRow], config: TrainConfig) -> Drawn:
    figure = blank()
    axes = figure.subplots()
    best = best_row(rows)
    _pair(axes, rows, [r.train_accuracy for r in rows], [r.validation_accuracy for r in rows])
    axes.plot(best.epoch, best.validation_accuracy, "o", color=INK, fillstyle="none", markersize=9, label="best")
    axes.set_ylabel("accuracy, %")
    _finish(axes, config)
    words = (
        f"Accuracy by epoch: training from {rows[0].train_accuracy:.2f} to {rows[-1].train_accuracy:.2f} %, "
        f"validation from {rows[0].validation_accuracy:.2f} to {rows[-1].validation_accuracy:.2f} %, "
        f"best {best.validation_accuracy:.2f} % in epoch {best.epoch}."
    )
    return Drawn("accuracy", "Accuracy", words, figure)


def _loss(rows: Sequence[EpochRow], config: TrainConfig) -> Drawn:
    figure = blank()
    axes = figure.subplots()
    _pair(axes, rows, [r.train_loss for r in rows], [r.validation_loss for r in rows])
    axes.set_ylabel("cross entropy, nats")
    _finish(axes, config)
    words = (
        f"Loss by epoch: training from {rows[0].train_loss:.3f} to {rows[-1].train_loss:.3f} nats, "
        f"validation from {rows[0].validation_loss:.3f} to {rows[-1].validation_loss:.3f}."
    )
    return Drawn("loss", "Loss", words, figure)


def _pair(axes: Axes, rows: Sequence[EpochRow], train: Sequence[float], validation: Sequence[float]) -> None:
    epochs, marker = [row.epoch for row in rows], _marker(rows)
    axes.plot(epochs, train, color=TRAIN, linestyle="dashed", marker=marker, label="training")
    axes.plot(epochs, validation, color=LOCAL, marker=marker, label="validation")


def _marker(rows: Sequence[EpochRow]) -> str:
    """A single epoch makes no line."""
    return "o" if len(rows) == 1 else ""


def _finish(axes: Axes, config: TrainConfig) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(0, config.epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.figure.legend(loc="outside upper left", ncols=3, handlelength=1.6, columnspacing=1.2)
