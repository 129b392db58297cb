"""RUN.npz beside submissions/RUN.csv: what the networks said, by which check judges the CSV before it is submitted.

Written before the CSV, bound to it by the CSV's sha256.  `test` is CIFAR-10's labelled test_batch.
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from pipeline.errors import BadData
from pipeline.store import atomic
from pipeline.store.fields import parse


@dataclass(frozen=True)
class Said:
    """What R networks say of N images, in the images' order."""

    probabilities: NDArray[np.float32]  # (N, classes): averaged over networks and views, as for the CSV
    members: NDArray[np.uint8]  # (R, N): the label that each network gives alone, to the image as it is
    truth: NDArray[np.uint8] | None  # (N,): the true labels, None for hidden images

    def __len__(self) -> int:
        """The number of images."""
        return len(self.probabilities)

    @property
    def known_truth(self) -> NDArray[np.uint8]:
        """The true labels (N,) of labelled images."""
        assert self.truth is not None  # Evidence.read has seen to that
        return self.truth

    @property
    def labels(self) -> NDArray[np.int64]:
        """The most probable classes, (N,), ties to the lower."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found


@dataclass(frozen=True)
class Evidence:
    """The answers behind one CSV."""

    csv_sha256: str
    runs: tuple[str, ...]  # names of the R networks
    hidden: Said
    test: Said
    validation: Said | None  # None: the networks share no validation split
    hidden_rows: NDArray[np.int64]  # (n,), ascending: the hidden images whose features these are
    hidden_features: NDArray[np.float32]  # (n, F): what the first network's linear layer sees
    foreign: NDArray[np.float32]  # (n,): how unlike labelled images each of them is, by pipeline.gap.shift
    test_rows: NDArray[np.int64]  # (m,), ascending
    test_features: NDArray[np.float32]  # (m, F)
    examination: Mapping[str, Any]  # what pipeline.gap.examination found, JSON values

    def write(self, csv: Path) -> None:
        """Write it beside `csv`, atomically."""
        values = {"csv_sha256": np.array(self.csv_sha256), "runs": np.array(self.runs)}
        values["examination"] = np.array(json.dumps(self.examination))
        for name in FEATURES:
            values[name] = getattr(self, name)
        for name in SETS:
            said = getattr(self, name)
            if said is not None:
                parts = {f"{name}_{part.name}": getattr(said, part.name) for part in dataclasses.fields(Said)}
                values |= {key: value for key, value in parts.items() if value is not None}
        with atomic.replacing(path_of(csv)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **values)  # type: ignore[arg-type]  # numpy's stubs take its option for an array

    @classmethod
    def read(cls, csv: Path, most: int | None = None) -> Self | None:
        """The evidence of `csv`, or None if there is none.

        Args:
            most: so many of the answers to hidden images are enough, evenly spread; the others take no memory.

        Raises:
            BadData: it is damaged.
        """
        path = path_of(csv)
        if not path.is_file():
            return None
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                values = {name: stored[name] for name in stored.files if name != HIDDEN}
                values[HIDDEN], step = _thinned(stored, HIDDEN, most)
                values["hidden_members"] = values["hidden_members"][:, ::step]
            hidden, test = _said(values, "hidden"), _said(values, "test")
            if hidden is None or test is None:
                raise KeyError("hidden or test")
            return cls(
                csv_sha256=str(values["csv_sha256"]),
                runs=tuple(str(name) for name in values["runs"]),
                hidden=hidden,
                test=test,
                validation=_said(values, "validation"),
                examination=parse(str(values["examination"])),
                **{name: values[name] for name in FEATURES},
            )
        except (OSError, ValueError, TypeError, KeyError, EOFError, OverflowError, zipfile.BadZipFile) as error:
            raise BadData(f"{path} is damaged or of another version ({error}): predict again with --force") from error


HIDDEN = "hidden_probabilities"
AT_ONCE = 4096  # rows that are kept, at a time
SETS = ("hidden", "test", "validation")
FEATURES = ("hidden_rows", "hidden_features", "foreign", "test_rows", "test_features")


def _thinned(stored: NpzFile, name: str, most: int | None) -> tuple[NDArray[Any], int]:
    """At most so many rows of a stored array, every `step`-th, and that step; read in parts."""
    assert stored.zip is not None  # it is open
    with stored.zip.open(f"{name}.npy") as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} is of another version")
        (rows, columns), fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if fortran or dtype.hasobject:
            raise ValueError(f"{name} lies otherwise than it was written")
        step, found = max(-(-rows // (most or rows or 1)), 1), []
        for start in range(0, rows, step * AT_ONCE):
            count = min(step * AT_ONCE, rows - start)
            part = np.frombuffer(stream.read(count * columns * dtype.itemsize), dtype).reshape(count, columns)
            found.append(part[::step].copy())
    return np.concatenate(found), step


def _said(values: dict[str, NDArray[Any]], name: str) -> Said | None:
    """One of the SETS.

    Raises:
        ValueError, KeyError: its arrays do not fit each other, or one is not there.
    """
    if f"{name}_probabilities" not in values:
        return None
    said = Said(values[f"{name}_probabilities"], values[f"{name}_members"], values.get(f"{name}_truth"))
    rows = {len(said), said.members.shape[-1], len(said) if said.truth is None else len(said.truth)}
    if said.probabilities.ndim != 2 or said.members.ndim != 2 or len(rows) != 1:
        raise ValueError(f"the arrays of {name} do not fit each other")
    labels = [said.members] if said.truth is None else [said.members, said.truth[None]]
    classes = said.probabilities.shape[1]
    if any(given.dtype != np.uint8 or given.ndim != 2 or (given >= classes).any() for given in labels):
        raise ValueError(f"the labels of {name} are none")
    if name != "hidden" and said.truth is None:
        raise KeyError(f"{name}_truth")
    return said


def path_of(csv: Path) -> Path:
    """submissions/sub.csv -> submissions/sub.npz."""
    return csv.with_suffix(".npz")
