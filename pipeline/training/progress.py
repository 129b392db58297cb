"""What the user sees while a run trains: a line an epoch, and how the epoch under way stands."""

from collections.abc import Callable
from time import monotonic

from pipeline.errors import Say
from pipeline.progress import Meter, duration
from pipeline.store.epochs import EpochRow


class Progress:
    """Reports on a run of `epochs` times `steps` of `images`, of which `done` steps are done already."""

    def __init__(
        self, say: Say, epochs: int, steps: int, images: int, done: int, *,
        shown: bool = True, clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        self._epochs, self._steps, self._images = epochs, steps, images
        # Of the last one or two epochs, so that validations and checkpoints count in the time to go.
        self._meter = Meter(
            "train:", epochs * images, "images", say,
            done=done * images // steps, shown=shown, window=float("inf"), clock=clock,
        )  # fmt: skip

    def steps(self, done: int, loss: float) -> None:
        """`done` steps of the run are done; `loss` is the epoch's mean so far."""
        note = f"epoch {-(-done // self._steps)}/{self._epochs}, loss {loss:.3f}"
        self._meter.update(done * self._images // self._steps, note)

    def epoch(self, row: EpochRow, last: bool) -> None:
        """One line for an epoch; `last` says that none follows."""
        self._meter.mark()
        left = self._meter.seconds_left
        self.line(
            f"epoch {row.epoch:>{len(str(self._epochs))}}/{self._epochs}  rate {row.rate:.2e}  "
            f"train {row.train_loss:.3f} {row.train_accuracy:.2f} %  "
            f"validation {row.validation_loss:.3f} {row.validation_accuracy:.2f} %  "
            f"{row.images_per_second:,.0f} images/s  {duration(row.seconds)}"
            + ("" if last or left is None else f", {duration(left)} to go")
        )

    def line(self, text: str) -> None:
        """A line that does not get mixed up with the bar."""
        self._meter.line(text)

    def close(self) -> None:
        """Take the bar away."""
        self._meter.close()
