"""The folder data/processed/SLUG: what preprocess writes and train and predict read.

    train_images.npy   uint8 (N, 32, 32, 3), RGB       train_labels.npy   int64 (N,), 0..9
    test_images.npy    uint8 (M, 32, 32, 3), RGB       test_labels.npy    int64 (M,), 0..9
    hidden_images.npy  uint8 (H, 32, 32, 3), RGB       hidden_ids.npy     int64 (H,), unique
    manifest.json      sizes, sha256, and what preprocess found out

"test" is CIFAR-10's labelled test_batch, elsewhere the holdout; "hidden" is the competition's unlabelled set.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData, MissingInput
from pipeline.store.manifest import Manifest

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
            raise MissingInput(
                f"{folder} holds no preprocessed data: run "
                f"`python -m pipeline.preprocess --competition {folder.name}` first"
            )
        if missing := manifest.missing(folder):
            raise BadData(f"{folder / missing[0]} is missing or damaged: {cls(folder, manifest)._cure}")
        return cls(folder, manifest)

    @property
    def training_fingerprint(self) -> str:
        """Identity of what runs learn from and are tested on (sha256 hex), without the test set."""
        return self.manifest.fingerprint("train_", "test_")

    @property
    def hidden_fingerprint(self) -> str:
        """Identity of the test images and their ids (sha256 hex)."""
        return self.manifest.fingerprint("hidden_")

    @property
    def class_names(self) -> list[str]:
        """The ten class names, in the order of the labels."""
        return list(self.manifest.facts["class_names"])

    def array(self, name: ArrayName) -> NDArray[Any]:
        """One array, memory-mapped and read-only: only rows that are used take memory.  BadData if it is damaged."""
        path = self.folder / f"{name}.npy"
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise BadData(f"{path} is damaged ({error}): {self._cure}") from error

    def rows(self, name: ArrayName, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The rows (R,) of one array; of a mapped one, read from its file.

        There the neighbourhood of each row that was looked at would stay in memory, up to the whole file.
        BadData if the file is shorter than it was.
        """
        array = self.array(name)
        # In Fortran order were files of an older version, which kept the order of the download's.
        if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
            return np.asarray(array[rows])
        values = np.empty((len(rows), *array.shape[1:]), array.dtype)
        # The places in `rows` where a stretch of neighbours begins, and the end.
        begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        with (self.folder / f"{name}.npy").open("rb", buffering=0) as stream:
            for first, end in pairwise([*begins, len(rows)]):
                stream.seek(array.offset + int(rows[first]) * values.strides[0])
                if stream.readinto(values[first:end].data) != values[first:end].nbytes:
                    raise BadData(f"{stream.name} has become shorter: {self._cure}")
        return values

    @property
    def _cure(self) -> str:
        return f"run `python -m pipeline.preprocess --competition {self.folder.name} --force`"


def even_rows(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `total` rows, evenly spread from the first to the last: ascending int64."""
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))
