"""The competition's submission: `ID,Labels`, one row a hidden image, integer labels 0..9, LF line ends."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import CLASSES
from pipeline.errors import BadData, MissingInput, printable

HEADER = "ID,Labels"


def write(path: Path, batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> int:
    """Write (ids, labels) batches as a submission and return the number of rows.

    Streams: memory does not grow with the number of rows.  Atomicity is the caller's.
    """
    rows = 0
    with path.open("w", newline="\n") as stream:
        stream.write(HEADER + "\n")
        for ids, labels in batches:
            stream.writelines(
                f"{i},{label}\n" for i, label in zip(ids.tolist(), labels.tolist(), strict=True)
            )
            rows += len(ids)
    return rows


def validate(path: Path, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Check that Kaggle will be able to score the CSV; its labels, in the order of `ids`.

    Args:
        path: the CSV.
        ids: int64 (N,), the hidden file's own ids.

    Raises:
        MissingInput: the file is not there.
        BadData: it is not a valid submission for these ids; says why and where.
    """
    table = _read(path)
    cure = "write it again with `python -m pipeline.predict`"
    values = {}
    for column in HEADER.split(","):
        good = table[column].str.fullmatch(r"-?\d{1,18}")
        if not good.all():
            row = int(np.argmin(good.to_numpy()))
            shown = printable(table[column].iloc[row])
            raise BadData(f"{path}, line {row + 2}: {column} is {shown!r}, not a whole number; {cure}")
        values[column] = table[column].astype(np.int64).to_numpy()
    found, labels = values["ID"], values["Labels"]
    if len(outside := np.flatnonzero((labels < 0) | (labels >= CLASSES))):
        raise BadData(
            f"{path}, line {outside[0] + 2}: label {labels[outside[0]]} is outside 0..{CLASSES - 1}; {cure}"
        )
    unique, counts = np.unique(found, return_counts=True)
    if len(twice := unique[counts > 1]):
        raise BadData(f"{path}: id {twice[0]} occurs {counts.max()} times; {cure}")
    if len(missing := np.setdiff1d(ids, found)):
        raise BadData(
            f"{path}: {len(missing)} of {len(ids)} ids are missing, the first is {missing[0]}; {cure}"
        )
    if len(strangers := np.setdiff1d(found, ids)):
        raise BadData(
            f"{path}: {len(strangers)} ids are not in the hidden set, the first is {strangers[0]}; {cure}"
        )
    position = np.empty_like(found)
    position[np.argsort(ids, kind="stable")] = np.argsort(found, kind="stable")
    return labels[position].astype(np.int64, copy=False)


def _read(path: Path) -> pd.DataFrame:
    """The CSV's two columns as text.  Spreadsheets leave marks; each gets its own message."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise MissingInput(
            f"{path} does not exist: run `python -m pipeline.predict --out {path}` first"
        ) from None
    marks = {b"\xef\xbb\xbf": "starts with a byte-order mark", b"\xff\xfe": "is UTF-16"}
    for mark, what in marks.items():
        if raw.startswith(mark):
            raise BadData(f"{path} {what}, as spreadsheets write it: save it as plain ASCII CSV")
    first = printable(raw.split(b"\n", 1)[0].decode("ascii", "replace"))
    if first.rstrip("\\r") != HEADER:
        hint = " (semicolons instead of commas)" if ";" in first else ""
        raise BadData(f"{path}: the first line is {first!r}{hint}, it must be {HEADER!r}")
    if b"\r" in raw:
        raise BadData(f"{path} has Windows line ends (CRLF): save it with LF")
    if not raw.endswith(b"\n"):
        raise BadData(f"{path}: the last line has no line end, so the file may be cut short")
    options: dict[str, Any] = {
        "dtype": str,
        "keep_default_na": False,
        "encoding": "ascii",
        "skip_blank_lines": False,
    }
    try:
        table: pd.DataFrame = pd.read_csv(path, index_col=False, on_bad_lines="error", **options)
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise BadData(f"{path} is no CSV of two columns ({printable(error)})") from error
    if list(table.columns) != HEADER.split(","):
        raise BadData(f"{path}: the columns are not {HEADER!r}")
    return table
