"""Training steps of preset `paper`: ours beside the paper's way, interleaved.

    python tests/bench/training.py [--rounds N] [--steps N] [--device cpu] [--json]

The paper's way: torchvision's CIFAR10 images through PIL transforms in a DataLoader with all cores, float32,
NCHW, eager, torch.optim.Adam.  Ours: what `python -m pipeline.train` runs on this device, uncompiled; --compile adds
the compiled model.  Both take the same batches of 128 of the same images
(random pixels: speed does not depend on them).  `ratio` is theirs/ours in time: how many times faster ours is.
"""

import dataclasses
import os
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
from pipeline.training.step import TrainStep
from tests.bench import side_by_side

PAPER = PRESETS["paper"]


class Pictures(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does with each image: from the array to PIL, then the transforms."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        crop, flip = transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()
        self.transform = transforms.Compose([crop, flip, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def papers_way(images: np.ndarray, labels: np.ndarray, device: torch.device) -> side_by_side.Work:
    """An epoch of the plain loop that most people write."""
    model = build(PAPER.model, 0).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    # An epoch is a round, so that the workers, which stay, have nothing to do while others are timed.
    loader = DataLoader(
        Pictures(images, labels), PAPER.batch_size, shuffle=True, pin_memory=device.type == "cuda",
        num_workers=os.cpu_count() or 1, persistent_workers=True,
    )  # fmt: skip

    def epoch() -> None:
        for pixels, truth in loader:
            loss = criterion(model(pixels.to(device)), truth.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def ours(images: np.ndarray, labels: np.ndarray, device: Device) -> side_by_side.Work:
    """An epoch of the engine's own parts, as session and loop put them together."""
    training, state = TrainingImages(images, labels, PAPER, device.torch_device), start(PAPER, device)
    state.model.train()
    step = TrainStep(state, PAPER, device, training.steps, log=_warn, uncompiled=_uncompiled)

    def epoch() -> None:
        draws = training.draw(state.updates // training.steps)
        for number in range(training.steps):
            step(*training.batch(draws, number))

    return epoch


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _uncompiled() -> None:
    raise SystemExit("so there is no compiled model to measure")


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=5, device=True)
    parser.add_argument("--steps", type=int, default=4, help="steps a round (default: 4; on a GPU 400 is fair)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled network as well")
    arguments = parser.parse_args()
    generator, rows = np.random.default_rng(0), PAPER.batch_size * arguments.steps
    images = generator.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, rows)
    device = choose(arguments.device).by_rule(summarise(PAPER.model).macs, 1, "no", alone=True)
    ways = {"ours": ours(images, labels, device), "paper's": papers_way(images, labels, device.torch_device)}
    if arguments.compile:
        ways["compiled"] = ours(images, labels, dataclasses.replace(device, compiled=True))
    figures, lines = side_by_side.compare(ways, "paper's", arguments.rounds, rows)
    result = {"ratio": figures["ratios"]["ours"], **figures, "precision": device.precision, "steps": arguments.steps}
    side_by_side.report(arguments.json, result, [f"precision {device.precision}", *lines])


if __name__ == "__main__":
    main()
