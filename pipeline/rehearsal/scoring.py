"""The metric (accuracy), and Kaggle's complaints about a CSV, in the words of its submission parser."""

import csv
import io
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.config import CLASSES
from pipeline.errors import BadData, MissingInput, printable

HEADER = ["ID", "Labels"]
PENDING, COMPLETE, ERROR = "PENDING", "COMPLETE", "ERROR"
SPLIT_SEED = 0


class _Unscorable(Exception):
    """What is wrong with the submission."""


@dataclass(frozen=True)
class Outcome:
    """COMPLETE with scores (five decimals, or "" when there are no labels), or ERROR with the reason."""

    status: str
    public: str = ""
    private: str = ""
    error: str = ""


@dataclass(frozen=True)
class Truth:
    """The hidden labels by id, and which half of the ids the public score is taken over."""

    labels: dict[int, int]
    public: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the labels from a CSV `ID,Labels`.

        Raises:
            MissingInput: there is no such file.
            BadData: it is none of that kind.
        """
        try:
            labels = _rows(path.read_bytes())
        except FileNotFoundError:
            raise MissingInput(f"--labels {path}: there is no such file") from None
        except _Unscorable as error:
            raise BadData(f"--labels {path}: {error}; it must be a CSV with the header ID,Labels") from None
        ids = sorted(labels)
        random.Random(SPLIT_SEED).shuffle(ids)
        return cls(labels, frozenset(ids[: len(ids) // 2]))


def judge(content: bytes, truth: Truth | None) -> Outcome:
    """Score a submission; without `truth` only its form is looked at."""
    try:
        predicted = _rows(content)
        if truth is None:
            return Outcome(COMPLETE)
        _check_ids(predicted, truth)
    except _Unscorable as error:
        return Outcome(ERROR, error=f"ERROR: {error}")
    private = truth.labels.keys() - truth.public
    return Outcome(COMPLETE, _accuracy(predicted, truth, truth.public), _accuracy(predicted, truth, frozenset(private)))


def _accuracy(predicted: dict[int, int], truth: Truth, ids: frozenset[int]) -> str:
    right = sum(predicted[i] == truth.labels[i] for i in ids)
    return f"{right * 100_000 // max(1, len(ids)) / 100_000:.5f}"  # cut, not rounded: as Kaggle's scores are


def _check_ids(predicted: dict[int, int], truth: Truth) -> None:
    missing, unknown = truth.labels.keys() - predicted.keys(), predicted.keys() - truth.labels.keys()
    if len(missing) == 1:
        raise _Unscorable(f"Unable to find the required key value '{min(missing)}' in the 'ID' column")
    if missing:
        raise _Unscorable(f"Unable to find {len(missing)} required key values in the 'ID' column")
    if unknown:
        raise _Unscorable(f"The key value '{min(unknown)}' in the 'ID' column is unexpected")


def _rows(content: bytes) -> dict[int, int]:
    """The labels by id."""
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise _Unscorable("The submission is not a CSV file in UTF-8") from None
    if not lines:
        raise _Unscorable("The submission file is empty")
    if sorted(lines[0]) != sorted(HEADER):
        missing = next((name for name in HEADER if name not in lines[0]), None)
        if missing is not None:
            raise _Unscorable(f"Required column '{missing}' could not be found")
        raise _Unscorable(f"Found {len(lines[0])} columns when 2 were expected: ID,Labels")
    id_column, label_column = lines[0].index("ID"), lines[0].index("Labels")
    found: dict[int, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        if len(line) != len(HEADER):
            raise _Unscorable(f"Record {number - 1} had {len(line)} columns when 2 were expected")
        key = _integer(line[id_column], "ID", number)
        label = _integer(line[label_column], "Labels", number)
        if label >= CLASSES:
            raise _Unscorable(f"The value '{label}' in the column 'Labels' (Line {number}) is not in 0..9")
        if key in found:
            raise _Unscorable(f"The value '{key}' in the key column 'ID' was already defined (Line {number})")
        found[key] = label
    return found


def _integer(text: str, column: str, line: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        shown = printable(text, 40)
        raise _Unscorable(f"The value '{shown}' in the column '{column}' (Line {line}) is no whole number")
    return int(text)
