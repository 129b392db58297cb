"""What a person sees of long work: on a terminal one line with a bar, elsewhere plain lines, about one a minute.

A log or a notebook gets no control codes.  Nothing here needs torch.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from datetime import timedelta
from time import monotonic
from typing import Self, TypeVar

from tqdm import tqdm

from pipeline.errors import Log

Part = TypeVar("Part", bound=Sized)

ON_TERMINAL = 0.1  # seconds between two looks of a bar
FIRST_LINE, LINES = 10.0, 60.0  # seconds before the first plain line, and between two
WINDOW = 30.0  # seconds: the rate is that of the last one or two of these
WIDEST = 100  # columns of a bar and its text

BYTES = "B"  # a unit, shown in MB; its total is what can come at most: an archive is smaller than what is in it


def duration(seconds: float) -> str:
    """A time span as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def megabytes(size: float) -> str:
    """A size in bytes as MB of 10**6."""
    return f"{size / 1e6:.1f} MB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = ()) -> list[str]:
    """The lines of a table: columns two spaces apart, aligned to the right but for those in `left` (0-based)."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


class Meter:
    """Tells how far `what` is, of `total` units, with the rate and the time to go; to be closed, or used in a `with`.

    Without a total there is no time to go.  The rate begins with the first news: what comes before it, a compilation
    or a connection, does not come again.
    """

    def __init__(
        self, what: str, total: int | None, unit: str, log: Log, *,
        done: int = 0, shown: bool = True, window: float = WINDOW, clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        self._what, self._total, self._unit, self._log, self._clock = what, total, unit, log, clock
        self._shown, self._window, self._done = shown, window, done
        self._marks: list[tuple[float, int]] = []  # (when, done then) at the begin of the last two windows
        self._bar: tqdm[None] | None = None
        self._next = clock() + FIRST_LINE
        if shown and sys.stderr.isatty():
            # nrows: not the terminal's; one that tells no height would have no bar
            self._bar = tqdm(total=total, initial=done, bar_format="{desc} |{bar}|", desc=what, leave=False,
                             ncols=_columns(), nrows=20)  # fmt: skip
            self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def add(self, count: int) -> None:
        """`count` more units are done."""
        self.update(self._done + count)

    def update(self, done: int, note: str = "") -> None:
        """`done` units are done in all; `note` is shown beside."""
        self._done, now = done, self._clock()
        self._marks = self._marks or [(now, done)] * 2
        if now - self._marks[1][0] >= self._window:
            self.mark()
        if not self._shown or now < self._next:
            return
        self._next = now + (LINES if self._bar is None else ON_TERMINAL)
        if self._bar is None:
            self._log(self._text(note))
        else:
            self._bar.n, self._bar.ncols = done, _columns()
            self._bar.set_description_str(self._text(note))

    def each(self, parts: Iterable[Part]) -> Iterator[Part]:
        """The parts one by one, each counted by its length when the next one is asked for."""
        for part in parts:
            yield part
            self.add(len(part))

    def mark(self) -> None:
        """Forget how fast it was before the last mark."""
        if self._marks:
            self._marks = [self._marks[1], (self._clock(), self._done)]

    def _rate(self) -> float:
        """Units a second since the mark before the last; 0 while it is not known."""
        (began, before), *_ = self._marks or [(0.0, self._done)]
        seconds = self._clock() - began
        return (self._done - before) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time to go at the present rate; None while it is not known."""
        rate = self._rate()
        return None if self._total is None or not rate else max(self._total - self._done, 0) / rate

    def _text(self, note: str) -> str:
        """For example `predict: hidden images 41 %, 312 images/s, 0:01:12 to go`."""
        rate, left, in_bytes = self._rate(), self.seconds_left, self._unit == BYTES
        if in_bytes:
            share = megabytes(self._done) + (f" of at most {megabytes(self._total)}" if self._total else "")
        else:
            share = f"{100 * self._done // self._total} %" if self._total else f"{self._done:,} {self._unit}"
        parts = [f"{self._what} {share}", *([note] if note else [])]
        if rate:
            number = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
            parts.append(f"{megabytes(rate)}/s" if in_bytes else f"{number} {self._unit}/s")
        if left:
            parts.append(f"{'at most ' if in_bytes else ''}{duration(left)} to go")
        return ", ".join(parts)

    def line(self, text: str) -> None:
        """Say a line that does not get mixed up with the bar."""
        with tqdm.external_write_mode():
            self._log(text)

    def close(self) -> None:
        """Take the bar away, and leave the terminal at the begin of a line."""
        if self._bar is not None:
            self._bar.close()
            # An interrupt between tqdm's writing a line and its noting how long it is leaves that line there.
            sys.stderr.write(f"\r{' ' * _columns()}\r")
            sys.stderr.flush()


def _columns() -> int:
    """As many as a line may have; the terminal's last one would begin a new line on some, and some tell none, or 0."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return min((columns or 80) - 1, WIDEST)
