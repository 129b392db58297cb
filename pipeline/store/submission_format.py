"""The submission format: `ID,Labels`, one row a test image, integer labels 0..9, LF line ends."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import CLASSES
from pipeline.errors import BadData, printable

HEADER = "ID,Labels"
ROWS = re.compile(rb"(?:-?\d{1,18},-?\d{1,18}\n)*")  # 18 digits fit int64
CHUNK = 64 * 1024  # bytes in memory at a time


def write(path: Path, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    """Write a submission, ids and labels (N,); atomicity is the caller's."""
    import pandas  # noqa: PLC0415 - takes half a second; only predict needs it

    pandas.DataFrame(dict(zip(HEADER.split(","), (ids, labels), strict=True))).to_csv(
        path, index=False, lineterminator="\n"
    )


def validate(path: Path, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Check that Kaggle can score the CSV; returns its labels (N,) in the order of `ids`, int64 (N,), the test set's.

    Streams the file: a byte a row, unless the rows have another order.

    Raises:
        FileNotFoundError: there is no such file.
        BadData: it is not a valid submission for these ids; says why and where.
    """
    labels = np.empty(len(ids), dtype=np.uint8)
    rows = 0
    for found, given in _rows(path):
        end = rows + len(found)
        if not np.array_equal(found, ids[rows:end]):
            return _reordered(path, ids)
        labels[rows:end] = given
        rows = end
    return labels if rows == len(ids) else _reordered(path, ids)


def _reordered(path: Path, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The same for rows in another order than `ids`."""
    found, labels = (np.concatenate(parts) for parts in zip(*_rows(path), strict=True))
    unique, counts = np.unique(found, return_counts=True)
    if (most := counts.max()) > 1:
        raise BadData(f"{path}: id {unique[counts.argmax()]} occurs {most} times")
    if len(missing := np.setdiff1d(ids, found)):
        raise BadData(f"{path}: {len(missing):,} of {len(ids):,} ids missing, first: {missing[0]}")
    if len(strangers := np.setdiff1d(found, ids)):
        raise BadData(f"{path}: {len(strangers):,} ids not in the test set, first: {strangers[0]}")
    position = np.empty_like(found)
    position[np.argsort(ids, kind="stable")] = np.argsort(found, kind="stable")
    in_order: NDArray[np.uint8] = labels[position]
    return in_order


def _rows(path: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """The CSV's ids and labels, in chunks."""
    with path.open("rb") as stream:
        first, line = stream.readline(CHUNK), 2
        if first != f"{HEADER}\n".encode():
            cure = "save it as plain CSV, without UTF-16, a byte-order mark, Windows line ends or semicolons"
            shown = printable(first.rstrip(b"\n").decode("ascii", "replace"), 40)
            raise BadData(f"{path} is not a submission: its first line is '{shown}', not '{HEADER}' ({cure})")
        while body := stream.read(CHUNK) + stream.readline(CHUNK):
            if not ROWS.fullmatch(body):
                raise _bad_row(path, body, line)
            table = np.fromstring(body.replace(b"\n", b",")[:-1].decode(), dtype=np.int64, sep=",").reshape(-1, 2)
            labels = table[:, 1]
            if len(outside := np.flatnonzero((labels < 0) | (labels >= CLASSES))):
                row = outside[0]
                raise BadData(f"{path}, line {line + row}: label {labels[row]} is outside 0..{CLASSES - 1}")
            yield table[:, 0], labels.astype(np.uint8)
            line += len(table)
    if line == 2:
        raise BadData(f"{path} has no rows")


def _bad_row(path: Path, body: bytes, line: int) -> BadData:
    """The error for the first invalid row of `body`, which begins at line `line`."""
    good = ROWS.match(body)
    end = good.end() if good else 0
    shown, number = body[end:].partition(b"\n")[0].decode("ascii", "replace"), line + body.count(b"\n", 0, end)
    want = "`ID,label` as two whole numbers and a line end"
    return BadData(f"{path}, line {number}: expected {want}, found {printable(shown, 60)!r}")
