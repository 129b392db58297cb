"""Labelling images with preset `paper`'s network: what `python -m pipeline.predict` runs, beside the plain way.

    python tests/bench/predicting.py [--images N] [--rounds N] [--device cpu] [--json]

The plain way: float32, NCHW, eager, batch normalisations as they are, batches of 512.  Ours: channels_last, batch
normalisations folded, and bfloat16 where the device is fast in it (predict takes that only for a run whose labels
agree; here the agreement on some of these images is printed).  Interleaved; `ratio` is plain/ours in time.
"""

import dataclasses
import statistics
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model.resnet import build, normalise
from pipeline.recipes import MODELS
from pipeline.training.device import Device, choose
from pipeline.training.inference import Member, probabilities
from tests.bench import side_by_side

BATCH = 512
GENERATOR = np.random.default_rng(0)


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=3)
    parser.add_argument("--images", type=int, default=10_000, help="images a round (default: 10,000)")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    arguments = parser.parse_args()
    device = choose(arguments.device)
    pixels = GENERATOR.integers(0, 256, (arguments.images, 32, 32, 3), dtype=np.uint8)
    network = build(MODELS["paper"], 0).eval().to(device.torch_device)
    exact = dataclasses.replace(device, precision="fp32")
    members = {way: Member("bench", network, way) for way in (exact, device)}

    def ours(chosen: Device, count: int) -> np.ndarray:
        found = [
            probabilities([members[chosen]], pixels[k : k + BATCH], "none").mean(dim=(0, 1))
            for k in range(0, count, BATCH)
        ]
        return torch.cat(found).argmax(1).cpu().numpy()

    @torch.inference_mode()
    def plain(count: int) -> np.ndarray:
        found: list[Tensor] = []
        for k in range(0, count, BATCH):
            images = torch.from_numpy(pixels[k : k + BATCH]).to(device.torch_device)
            found.append(network(normalise(images).contiguous()).argmax(1))
        return torch.cat(found).cpu().numpy()

    agree = 100 * float((plain(2 * BATCH) == ours(device, 2 * BATCH)).mean())  # and a warm-up
    count = len(pixels)
    ways: dict[str, side_by_side.Work] = {"plain": partial(plain, count), "ours fp32": partial(ours, exact, count)}
    best = "ours fp32"
    if device.precision == "bf16":
        ways["ours bf16"] = partial(ours, device, count)
        best = "ours bf16"
    taken = side_by_side.interleaved(ways, arguments.rounds, warm_up=0)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    ratios = {name: side_by_side.median_ratio(taken["plain"], values) for name, values in taken.items()}
    lines = [f"{'way':12}{'seconds':>9}{'ratio':>8}"]
    lines += [f"{name:12}{seconds[name]:9.2f}{ratios[name]:8.2f}" for name in ways]
    result = {
        "ratio": ratios[best], "ratios": ratios, "seconds": seconds, "images": arguments.images,
        "labels_agree": agree, "rounds": arguments.rounds,
    }  # fmt: skip
    side_by_side.report(arguments.json, result, [*lines, f"labels alike: {agree:.2f} % of 1,024 (untrained weights)"])


if __name__ == "__main__":
    main()
