"""Convolutions of narrow images, forward and backward in bf16 on a CPU: ours beside PyTorch's, interleaved.

    python tests/bench/convolution.py [--rounds N] [--json]

`ratio` is theirs/ours in time: how many times faster ours is.  Without AMX they are the same.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model.convolution import Convolution
from tests.bench import side_by_side

# Images, channels in and out, pixels a side: of presets `fast`, `strong` and `paper`.
SHAPES = ((1000, 256, 7), (1000, 256, 3), (1000, 384, 7), (1000, 384, 3), (128, 256, 4))


def step(convolution: nn.Conv2d, x: Tensor, upstream: Tensor) -> None:
    """The gradients of the images and of the filters."""
    with torch.autocast("cpu", torch.bfloat16):
        result = convolution(x)
    torch.autograd.grad(result, (x, convolution.weight), upstream)


def main() -> None:
    """Measure and print."""
    arguments = side_by_side.parser(__doc__, rounds=15).parse_args()
    ratios, lines = {}, []
    for images, channels, side in SHAPES:
        x = torch.randn(images, channels, side, side).bfloat16().to(memory_format=torch.channels_last)
        upstream = torch.randn_like(x)
        modules = {
            "ours": Convolution(channels, channels),
            "PyTorch's": nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        }
        ways = {
            name: partial(step, module.to(memory_format=torch.channels_last), x.requires_grad_(), upstream)
            for name, module in modules.items()
        }
        figures, _ = side_by_side.compare(ways, "PyTorch's", arguments.rounds, images)
        name, speeds = f"{images} x {channels} x {side} x {side}", figures["images_per_second"]
        ratios[name] = figures["ratios"]["ours"]
        milliseconds = ", ".join(f"{way} {1e3 * images / speed:.1f} ms" for way, speed in speeds.items())
        lines.append(f"{name:20} {milliseconds}, ratio {ratios[name]:.2f}")
    side_by_side.report(arguments.json, {"ratio": min(ratios.values()), "ratios": ratios}, lines)


if __name__ == "__main__":
    main()
