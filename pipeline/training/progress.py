"""What the user sees while a run trains: a line an epoch, and on a terminal a bar with the time to go."""

import sys
from datetime import timedelta
from time import perf_counter

from tqdm import tqdm

from pipeline.errors import Say
from pipeline.store.epochs import EpochRow

FIRST_ESTIMATE = 20  # steps: enough for the first slow ones to count little


class Progress:
    """Reports on a run of `epochs` times `steps`, of which `done` steps are done already."""

    def __init__(self, say: Say, epochs: int, steps: int, done: int, shown: bool = True) -> None:
        self._say = say
        self._epochs = epochs
        self._total = epochs * steps
        self._first = self._done = done
        self._started = perf_counter()
        self._estimated = False
        # Without a terminal the bar would fill a log with control codes.
        self._bar = tqdm(total=self._total, initial=done, unit="step", disable=not (shown and sys.stderr.isatty()))

    def steps(self, done: int, loss: float, rate: float) -> None:
        """`done` steps of the run are done; `loss` is the epoch's mean so far."""
        self._bar.set_postfix(loss=f"{loss:.3f}", rate=f"{rate:.2e}", refresh=False)
        self._bar.update(done - self._done)
        self._done = done
        taken = done - self._first
        if not self._estimated and taken >= FIRST_ESTIMATE and done < self._total:
            self._estimated = True
            left = (perf_counter() - self._started) / taken * (self._total - done)
            self.line(f"about {duration(left)} of training to go, and the validations")

    def epoch(self, row: EpochRow) -> None:
        """One line for an epoch."""
        self.line(
            f"epoch {row.epoch:>{len(str(self._epochs))}}/{self._epochs}  rate {row.rate:.2e}  "
            f"train {row.train_loss:.3f} {row.train_accuracy:.2f} %  "
            f"validation {row.validation_loss:.3f} {row.validation_accuracy:.2f} %  "
            f"{row.images_per_second:.0f} images/s  {duration(row.seconds)}"
        )

    def line(self, text: str) -> None:
        """A line that does not get mixed up with the bar."""
        with tqdm.external_write_mode():
            self._say(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def duration(seconds: float) -> str:
    """A time span as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
