"""Training steps of preset `paper`: ours beside the paper's way, interleaved.

    python tests/bench/training.py [--rounds N] [--steps N] [--device cpu] [--json]

The paper's way: torchvision's CIFAR10 images through PIL transforms in a DataLoader with all cores, float32,
NCHW, eager, torch.optim.Adam.  Ours: what `python -m pipeline.train` runs on this device, uncompiled; --compile adds
the compiled model.  Both take the same batches of 128 of the same images
(random pixels: speed does not depend on them).  `ratio` is theirs/ours in time: how many times faster ours is.
"""

import dataclasses
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import MEAN, STD
from pipeline.model.resnet import build
from pipeline.model.summary import summarise
from pipeline.recipes import PRESETS
from pipeline.training.batches import TrainingImages
from pipeline.training.device import Device, choose
from pipeline.training.state import start
from pipeline.training.step import Step
from tests.bench import side_by_side

PAPER = PRESETS["paper"]
GENERATOR = np.random.default_rng(0)


class Pictures(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does with each image: from the array to PIL, then the transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class PapersWay:
    """The plain loop that most people write."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        self.device = device
        self.model = build(PAPER.model, 0).to(device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, weight_decay=1e-4)
        self.criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        cuda = device.type == "cuda"
        # An epoch is a round, so that the workers, which stay, have nothing to do while others are timed.
        self.loader = DataLoader(
            Pictures(images, labels), PAPER.batch_size, shuffle=True, pin_memory=cuda,
            num_workers=os.cpu_count() or 1, persistent_workers=True,
        )  # fmt: skip

    def epoch(self) -> None:
        """Train on all images once."""
        for images, labels in self.loader:
            loss = self.criterion(self.model(images.to(self.device)), labels.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class Ours:
    """The engine's own parts, as session and loop put them together."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, device: Device) -> None:
        self.training = TrainingImages(images, labels, PAPER, device.torch_device)
        self.state = start(PAPER, device)
        self.state.model.train()
        self.step = Step(self.state, PAPER, device, self.training.steps)

    def epoch(self) -> None:
        """Train on all images once."""
        draws = self.training.draw(self.state.updates // self.training.steps)
        for step in range(self.training.steps):
            self.step(*self.training.batch(draws, step))


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=4, help="steps a round (default: 4; on a GPU 400 is fair)")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--compile", action="store_true", help="measure the compiled network as well")
    arguments = parser.parse_args()
    rows = PAPER.batch_size * arguments.steps
    images = GENERATOR.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
    labels = GENERATOR.integers(0, 10, rows)
    device = choose(arguments.device).by_rule(summarise(PAPER.model).macs, 1, "no", alone=True)
    ours, theirs = Ours(images, labels, device), PapersWay(images, labels, device.torch_device)
    ways = {"ours": ours.epoch, "paper's": theirs.epoch}
    if arguments.compile:
        ways["compiled"] = Ours(images, labels, dataclasses.replace(device, compiled=True)).epoch
    taken = side_by_side.interleaved(ways, arguments.rounds)
    batch = PAPER.batch_size * arguments.steps
    speeds = {name: batch / statistics.median(seconds) for name, seconds in taken.items()}
    ratios = {name: side_by_side.median_ratio(taken["paper's"], taken[name]) for name in taken}
    lines = [f"{'way':10}{'images/s':>10}{'ratio':>8}"]
    lines += [f"{name:10}{speeds[name]:10.0f}{ratios[name]:8.2f}" for name in taken]
    result = {
        "ratio": ratios["ours"], "ratios": ratios, "images_per_second": speeds, "precision": device.precision,
        "rounds": arguments.rounds, "steps": arguments.steps,
    }  # fmt: skip
    side_by_side.report(arguments.json, result, [f"precision {device.precision}", *lines])


if __name__ == "__main__":
    main()
