"""A tiny processed folder that a model can learn in seconds, and a way into the middle of a training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
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
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 256, (10, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    for name, rows in (("train", train), ("test", test)):
        labels = np.arange(rows, dtype=np.int64) % 10
        noisy = patterns[labels] + generator.normal(0, 25, (rows, 32, 32, 3))
        np.save(folder / f"{name}_images.npy", noisy.clip(0, 255).astype(np.uint8))
        np.save(folder / f"{name}_labels.npy", labels)
    np.save(folder / "hidden_images.npy", np.load(folder / "test_images.npy")[::3])
    np.save(folder / "hidden_ids.npy", np.arange(len(range(0, test, 3)), dtype=np.int64))
    facts = {"class_names": [f"class{i}" for i in range(10)]}
    Manifest("preprocess", records(folder, folder.glob("*.npy")), facts=facts).write(folder)
    return folder


def before_step(patch: pytest.MonkeyPatch, epoch: int, step: int, action: Callable[[], object]) -> None:
    """Call `action` just before that step of that epoch, both 0-based."""
    plain = TrainStep.__call__

    def disturbed(self: TrainStep, images: Tensor, targets: Tensor, whole: int | None = None) -> None:
        if (self._state.epoch, self._state.step) == (epoch, step):
            action()
        plain(self, images, targets, whole)

    patch.setattr(TrainStep, "__call__", disturbed)
