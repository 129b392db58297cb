"""The folder data/processed/SLUG, which preprocess writes and train and predict read.

    train_images.npy   uint8 (N, 32, 32, 3), RGB       train_labels.npy   int64 (N,), 0..9
    test_images.npy    uint8 (M, 32, 32, 3), RGB       test_labels.npy    int64 (M,), 0..9
    hidden_images.npy  uint8 (H, 32, 32, 3), RGB       hidden_ids.npy     int64 (H,), unique
    manifest.json      sizes, sha256, and what preprocess detected

"test" here is CIFAR-10's labelled test_batch, elsewhere called the holdout; "hidden" is the competition's test set.
"""

import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Paths
from pipeline.errors import BadData, MissingInput
from pipeline.store.manifest import Manifest, reading

ArrayName = Literal["train_images", "train_labels", "test_images", "test_labels", "hidden_images", "hidden_ids"]


@dataclass(frozen=True)
class Processed:
    """A complete folder of checked arrays."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open data/processed/SLUG.  Sizes are checked; arrays are read when asked for.

        Raises:
            MissingInput: preprocess has not finished there.
            BadData: a file is missing or has another size than recorded.
        """
        manifest = Manifest.read(folder)
        if manifest is None:
            raise MissingInput(f"{folder} holds no preprocessed data: run `{_command(folder)}` first")
        if missing := manifest.missing(folder):
            raise BadData(f"{folder / missing[0]} is missing or damaged: {cls(folder, manifest)._cure}")
        return cls(folder, manifest)

    @property
    def training_fingerprint(self) -> str:
        """Identity of the training images and the holdout (sha256 hex)."""
        return self.manifest.fingerprint("train_", "test_")

    @property
    def hidden_fingerprint(self) -> str:
        """Identity of the test images and their ids (sha256 hex)."""
        return self.manifest.fingerprint("hidden_")

    @property
    def class_names(self) -> list[str]:
        """The ten class names, in label order."""
        return list(self.manifest.facts["class_names"])

    def array(self, name: ArrayName) -> NDArray[Any]:
        """One array, memory-mapped and read-only; BadData if it is damaged."""
        path = self.folder / f"{name}.npy"
        with reading(path, self._cure):
            return np.lib.format.open_memmap(path, mode="r")

    def rows(self, name: ArrayName, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The rows (R,) of one array, from the file: mapping keeps neighbours in memory; BadData if it is truncated."""
        array = self.array(name)
        # Older versions kept the download's order, so a file may be in Fortran order.
        if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
            return np.asarray(array[rows])
        values = np.empty((len(rows), *array.shape[1:]), array.dtype)
        # Where in `rows` stretches of neighbours begin, and the end.
        begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        with (self.folder / f"{name}.npy").open("rb", buffering=0) as stream:
            for first, end in pairwise([*begins, len(rows)]):
                stream.seek(array.offset + int(rows[first]) * values.strides[0])
                if stream.readinto(values[first:end].data) != values[first:end].nbytes:
                    raise BadData(f"{stream.name} was truncated: {self._cure}")
        return values

    @property
    def _cure(self) -> str:
        return f"run `{_command(self.folder)} --force`"


def _command(folder: Path) -> str:
    """The command that makes data/processed/SLUG."""
    there = [] if folder.parent == Paths.processed else ["--processed", str(folder.parent)]
    return shlex.join(["python", "-m", "pipeline.preprocess", "--competition", folder.name, *there])


def even_rows(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `total` rows, evenly spread from the first to the last: ascending int64."""
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))
