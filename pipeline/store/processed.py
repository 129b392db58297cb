"""The folder data/processed/SLUG: what preprocess writes and train and predict read.

    train_images.npy   uint8 (N, 32, 32, 3), RGB       train_labels.npy   int64 (N,), 0..9
    test_images.npy    uint8 (M, 32, 32, 3), RGB       test_labels.npy    int64 (M,), 0..9
    hidden_images.npy  uint8 (H, 32, 32, 3), RGB       hidden_ids.npy     int64 (H,), unique
    manifest.json      sizes, sha256, and what preprocess found out

"test" is CIFAR-10's labelled test_batch; "hidden" is the competition's unlabelled set.
"""

from dataclasses import dataclass
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
            raise BadData(
                f"{folder / missing[0]} is missing or damaged: run "
                f"`python -m pipeline.preprocess --competition {folder.name} --force`"
            )
        return cls(folder, manifest)

    @property
    def training_fingerprint(self) -> str:
        """Identity of what runs learn from and are tested on (sha256 hex), without the hidden set."""
        return training_fingerprint(self.manifest)

    @property
    def hidden_fingerprint(self) -> str:
        """Identity of the hidden images and their ids (sha256 hex)."""
        return self.manifest.fingerprint("hidden_")

    @property
    def class_names(self) -> list[str]:
        """The ten class names, in the order of the labels."""
        return list(self.manifest.facts["class_names"])

    def array(self, name: ArrayName) -> NDArray[Any]:
        """One array, memory-mapped and read-only: only the rows that are used take memory."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def even_rows(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `total` rows, evenly spread from the first to the last: ascending int64."""
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))


def training_fingerprint(manifest: Manifest) -> str:
    """The `training_fingerprint` of the arrays that `manifest` records."""
    return manifest.fingerprint("train_", "test_")
