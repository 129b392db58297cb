"""A tiny processed folder that a model can learn in seconds, and a way into the middle of a training."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from pipeline.store.manifest import Manifest, records
from pipeline.training.step import TrainStep

SLUG = "tiny"


def write_tiny(processed: Path, train: int = 300, test: int = 100, seed: int = 0) -> Path:
    """Write processed/tiny: each class is a colour pattern of its own under noise.  Returns the folder.

    Every third test image is a hidden one, too.
    """
    folder = processed / SLUG
    folder.mkdir(parents=True)
    for name, values in _arrays(train, test, seed).items():
        np.save(folder / f"{name}.npy", values)
    facts = {"class_names": [f"class{i}" for i in range(10)]}
    Manifest("preprocess", records(folder, folder.glob("*.npy")), facts=facts).write(folder)
    return folder


@functools.cache
def _arrays(train: int, test: int, seed: int) -> dict[str, NDArray[np.generic]]:
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 256, (10, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, rows in (("train", train), ("test", test)):
        labels = arrays[f"{name}_labels"] = np.arange(rows, dtype=np.int64) % 10
        noisy = patterns[labels] + generator.normal(0, 25, (rows, 32, 32, 3))
        arrays[f"{name}_images"] = noisy.clip(0, 255).astype(np.uint8)
    hidden = arrays["test_images"][::3]
    return {**arrays, "hidden_images": hidden, "hidden_ids": np.arange(len(hidden), dtype=np.int64)}


def before_step(patch: pytest.MonkeyPatch, epoch: int, step: int, action: Callable[[], object]) -> None:
    """Call `action` just before that step of that epoch, both 0-based."""
    plain = TrainStep.__call__

    def disturbed(self: TrainStep, images: Tensor, targets: Tensor, whole: int | None = None) -> None:
        if (self._state.epoch, self._state.step) == (epoch, step):
            action()
        plain(self, images, targets, whole)

    patch.setattr(TrainStep, "__call__", disturbed)
