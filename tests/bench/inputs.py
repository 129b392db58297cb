"""The input pipeline alone: crop, flip and normalisation, ours on one thread beside PIL transforms.

    python tests/bench/inputs.py [--rounds N] [--json]

Ours gathers whole batches of 128 (preset `paper`); theirs takes image by image through torchvision's PIL
transforms, both in this process on one thread.  `ratio` is theirs/ours in time; `images_per_second` of ours is a
core's.  The augmentations that a recipe can add are measured as well, each with the crop and the flip.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model.resnet import normalise
from pipeline.recipes import PRESETS
from pipeline.training.batches import TrainingImages
from tests.bench import side_by_side
from tests.bench.training import Pictures

BATCH, STEPS = 128, 16
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (BATCH * STEPS, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, len(IMAGES))
RECIPES: dict[str, dict[str, object]] = {
    "crop, flip": {},
    "+ cutout": {"cutout": 8},
    "+ mixup": {"mixup": 0.2},
    "+ cutmix": {"cutmix": 1.0},
}


def ours(training: TrainingImages) -> None:
    """All batches of an epoch, with its random numbers, up to what the network takes."""
    draws = training.draw(0)
    for step in range(training.steps):
        normalise(training.batch(draws, step)[0])


def theirs(pictures: Pictures) -> None:
    """Image by image, stacked into batches as a DataLoader does."""
    for first in range(0, len(IMAGES), BATCH):
        torch.stack([pictures[row][0] for row in range(first, first + BATCH)])


def main() -> None:
    """Measure and print."""
    arguments = side_by_side.parser(__doc__, rounds=9).parse_args()
    torch.set_num_threads(1)
    ways: dict[str, side_by_side.Work] = {"PIL": partial(theirs, Pictures(IMAGES, LABELS))}
    for name, change in RECIPES.items():
        config = dataclasses.replace(PRESETS["paper"], **change)  # type: ignore[arg-type]
        ways[name] = partial(ours, TrainingImages(IMAGES, LABELS, config, torch.device("cpu")))
    figures, lines = side_by_side.compare(ways, "PIL", arguments.rounds, len(IMAGES))
    side_by_side.report(arguments.json, {"ratio": figures["ratios"]["crop, flip"], **figures}, lines)


if __name__ == "__main__":
    main()
