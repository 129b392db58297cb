"""What a person sees of long work: on a terminal one line with a bar, elsewhere plain lines, one a minute.

A log or a notebook gets no control codes.  Nothing here needs torch.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence, Sized
from datetime import timedelta
from typing import Self, TypeVar

from tqdm import tqdm

from pipeline.errors import Log

Part = TypeVar("Part", bound=Sized)

LINE_INTERVAL = 60.0  # seconds between two plain lines; shorter work says nothing
BYTES = "B"  # a unit; its total is what can come at most: an archive is smaller than what is in it
SHARE_FORMAT = "{desc} {percentage:.0f} %{postfix}, {rate_noinv_fmt}, {remaining} to go"
AT_MOST_FORMAT = "{desc} {n_fmt}B of at most {total_fmt}B, {rate_noinv_fmt}, at most {remaining} to go"
COUNT_FORMAT = "{desc} {n_fmt}{unit}, {rate_noinv_fmt}"  # where no total is known


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


class _Lines:
    """A stream for tqdm that hands each line to `log`."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def write(self, text: str) -> None:
        if line := text.strip():
            self._log(line)

    def flush(self) -> None:
        pass


class Meter:
    """Tells how far `what` is, of `total` units, with the rate and the time to go; to be closed, or used in `with`."""

    def __init__(self, what: str, total: int | None, unit: str, log: Log, *, done: int = 0, shown: bool = True) -> None:
        self._log = log
        in_bytes, terminal = unit == BYTES, sys.stderr.isatty()
        text = COUNT_FORMAT if total is None else AT_MOST_FORMAT if in_bytes else SHARE_FORMAT
        tqdm.monitor_interval = 0  # no thread: another process may be forked meanwhile
        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            disable=not shown,
            leave=False,
            unit=unit if in_bytes else f" {unit}",
            unit_scale=in_bytes,
            bar_format=f"{text} |{{bar}}|" if terminal else text,
            file=sys.stderr if terminal else _Lines(log),
            dynamic_ncols=terminal,
            miniters=1,
            mininterval=0.1 if terminal else LINE_INTERVAL,
            delay=0.0 if terminal else LINE_INTERVAL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def add(self, count: int) -> None:
        """`count` more units are done."""
        self._bar.update(count)

    def update(self, done: int, note: str = "") -> None:
        """`done` units are done in all; `note` is shown beside."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def each(self, parts: Iterable[Part]) -> Iterator[Part]:
        """The parts one by one, each counted by its length when the next one is asked for."""
        for part in parts:
            yield part
            self.add(len(part))

    def line(self, text: str) -> None:
        """Say a line that does not get mixed up with the bar."""
        with tqdm.external_write_mode():
            self._log(text)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()
