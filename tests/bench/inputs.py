"""The input pipeline alone: crop, flip and normalisation, ours on one thread beside PIL transforms.

    python tests/bench/inputs.py [--rounds N] [--json]

Ours gathers whole batches of 128 (preset `paper`); theirs takes image by image through torchvision's PIL
transforms, both in this process on one thread.  `ratio` is theirs/ours in time; `images_per_second` of ours is a
core's.  The augmentations that a recipe can add are measured as well, each with the crop and the flip.
"""

import dataclasses
import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model.resnet import normalise
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.training.batches import TrainingImages
from tests.bench import side_by_side
from tests.bench.training import Pictures

ROWS = 128 * 16
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, ROWS)
PAPER = PRESETS["paper"]
RECIPES: dict[str, dict[str, object]] = {
    "crop, flip": {},
    "+ cutout": {"cutout": 8},
    "+ mixup": {"mixup": 0.2},
    "+ cutmix": {"cutmix": 1.0},
    "+ ricap": {"ricap": 0.3},
    "+ trivialaugment": {"policy": "trivialaugment"},
}


def epoch(training: TrainingImages) -> None:
    """All batches of an epoch, with its random numbers, up to what the network takes."""
    draws = training.draw(0)
    for step in range(training.steps):
        images, _ = training.batch(draws, step)
        normalise(images)


def theirs(pictures: Pictures, count: int) -> None:
    """Image by image, stacked into batches as a DataLoader does."""
    for first in range(0, count, 128):
        torch.stack([pictures[row][0] for row in range(first, first + 128)])


def main() -> None:
    """Measure and print."""
    arguments = side_by_side.parser(__doc__, rounds=9).parse_args()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")

    def ours(change: dict[str, object]) -> TrainingImages:
        config: TrainConfig = dataclasses.replace(PAPER, **change)  # type: ignore[arg-type]
        return TrainingImages(IMAGES, LABELS, config, cpu)

    made = {name: ours(change) for name, change in RECIPES.items()}
    pictures = Pictures(IMAGES, LABELS)
    ways: dict[str, side_by_side.Work] = {name: partial(epoch, training) for name, training in made.items()}
    ways["PIL"] = lambda: theirs(pictures, ROWS)
    taken = side_by_side.interleaved(ways, arguments.rounds)
    speeds = {name: ROWS / statistics.median(seconds) for name, seconds in taken.items()}
    ratio = side_by_side.median_ratio(taken["PIL"], taken["crop, flip"])
    lines = [f"{'input':18}{'images/s':>10}", *(f"{name:18}{speed:10,.0f}" for name, speed in speeds.items())]
    result = {"ratio": ratio, "images_per_second": speeds, "rounds": arguments.rounds}
    side_by_side.report(arguments.json, result, [*lines, f"crop, flip: {ratio:.1f} times PIL"])


if __name__ == "__main__":
    main()
