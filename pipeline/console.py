"""What a stage prints: headers and progress on stderr, results on stdout; numbers and tables.

Long work shows a bar on a terminal, and elsewhere a plain line a minute: logs and notebooks get no
control codes.  Nothing here needs torch.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TextIO

from tqdm import tqdm

from pipeline.errors import Log, printable

LINE_INTERVAL = 60.0  # seconds between two plain lines
BYTES = "B"  # a unit whose total is a maximum: an archive is smaller than its content
SHARE_FORMAT = "{desc} {percentage:.0f}%{postfix}, {rate_noinv_fmt}, {remaining} left"
AT_MOST_FORMAT = "{desc} {n_fmt}B of at most {total_fmt}B, {rate_noinv_fmt}, at most {remaining} left"
COUNT_FORMAT = "{desc} {n_fmt}{unit}, {rate_noinv_fmt}"  # without a total


def log(message: str) -> None:
    """Print a header or progress."""
    _print(message, sys.stderr)


def show(message: str) -> None:
    """Print a result."""
    _print(message, sys.stdout)


def _print(message: str, stream: TextIO) -> None:
    """Print at once, beside any bar, without control characters; quoted text goes through `printable`."""
    lines = [printable(line, 10 * len(line)) for line in message.split("\n")]
    with tqdm.external_write_mode(stream):
        print("\n".join(lines), file=stream, flush=True)


def duration(seconds: float) -> str:
    """A time span: 20s, 3m 20s or 1h 47m."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60}m" if minutes >= 60 else f"{minutes}m {rest}s" if minutes else f"{rest}s"


def scientific(number: float) -> str:
    """A learning rate: 8.1e-4."""
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def megabytes(size: float) -> str:
    """A size in bytes as MB of 10**6."""
    return f"{size / 1e6:.1f} MB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = ()) -> list[str]:
    """The lines of a table: columns two spaces apart, right-aligned except those in `left` (0-based)."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


@contextmanager
def working(what: str, shown: bool = True) -> Iterator[None]:
    """On a terminal, show what is being done while the block runs."""
    disable = not (shown and sys.stderr.isatty())
    with tqdm(desc=f"{what} ...", bar_format="{desc}", leave=False, file=sys.stderr, disable=disable):
        yield


class _Lines:
    """A stream for tqdm that passes each line to `log`."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def write(self, text: str) -> None:
        if line := text.strip():
            self._log(line)

    def flush(self) -> None:
        pass


class Meter:
    """Progress of `what`, of `total` units, with rate and time left; for `with`, which removes it at the end."""

    def __init__(self, what: str, total: int | None, unit: str, log: Log, *, done: int = 0, shown: bool = True) -> None:
        in_bytes, terminal = unit == BYTES, sys.stderr.isatty()
        text = COUNT_FORMAT if total is None else AT_MOST_FORMAT if in_bytes else SHARE_FORMAT
        tqdm.monitor_interval = 0  # no thread, since a process may fork
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
        self._bar.close()

    def add(self, count: int) -> None:
        """Count `count` more units."""
        self._bar.update(count)

    def update(self, done: int, note: str = "") -> None:
        """Set the number of finished units; show `note` beside it."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
