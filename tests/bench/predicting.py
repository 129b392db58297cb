"""Labelling images with preset `paper`'s network: what `python -m pipeline.predict` runs, beside the plain way.

    python tests/bench/predicting.py [--images N] [--rounds N] [--device cpu] [--json]

The plain way: float32, NCHW, eager, batch normalisations as they are, batches of 512.  Ours: channels_last, batch
normalisations folded, and bfloat16 where the device is fast in it (predict takes that only for a run whose labels
agree; here the agreement on some of these images is printed).  Interleaved; `ratio` is plain/ours in time.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model.resnet import build, normalise
from pipeline.recipes import MODELS
from pipeline.training.device import Precision, choose
from pipeline.training.inference import Member, Panel
from tests.bench import side_by_side

BATCH = 512


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=3, device=True)
    parser.add_argument("--images", type=int, default=10_000, help="images a round (default: 10,000)")
    arguments = parser.parse_args()
    device = choose(arguments.device)
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.images, 32, 32, 3), dtype=np.uint8)
    network = build(MODELS["paper"], 0).eval().to(device.torch_device)

    def ours(precision: Precision, images: np.ndarray) -> np.ndarray:
        return np.asarray(panels[precision].probabilities(images).argmax(1))

    @torch.inference_mode()
    def plain(images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(images).split(BATCH)  # type: ignore[no-untyped-call]
        found = [network(normalise(part.to(device.torch_device)).contiguous()).argmax(1) for part in parts]
        return torch.cat(found).cpu().numpy()

    devices = {one.precision: one for one in (dataclasses.replace(device, precision="fp32"), device)}
    panels = {name: Panel([Member("bench", network, one)], "none", BATCH) for name, one in devices.items()}
    ways: dict[str, side_by_side.Work] = {"plain": partial(plain, pixels)}
    ways |= {f"ours {name}": partial(ours, name, pixels) for name in panels}
    agree = 100 * float((plain(pixels[:1024]) == ours(device.precision, pixels[:1024])).mean())
    figures, lines = side_by_side.compare(ways, "plain", arguments.rounds, len(pixels))
    result = {"ratio": figures["ratios"][f"ours {device.precision}"], **figures, "labels_agree": agree}
    side_by_side.report(arguments.json, result, [*lines, f"labels alike: {agree:.2f}% of 1,024 (untrained weights)"])


if __name__ == "__main__":
    main()
