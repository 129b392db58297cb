"""Our layers, forward and backward in bf16 on a CPU, beside PyTorch's, interleaved.

    python tests/bench/layers.py [--rounds N] [--json]

`ratio` is theirs/ours in time: how many times faster ours is.  Without AMX the convolutions are the same.
"""

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.model.convolution import Convolution
from pipeline.model.norm import BatchNorm
from tests.bench import side_by_side

# Images, channels, pixels a side: of presets `fast`, `strong` and `paper`.
CONVOLUTIONS = ((1000, 256, 7), (1000, 256, 3), (1000, 384, 7), (1000, 384, 3), (128, 256, 4))
NORMS = ((128, 36, 32), (128, 72, 16))


def step(layer: nn.Module, x: Tensor, upstream: Tensor) -> None:
    """The gradients of the images and of the parameters."""
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(x)
    torch.autograd.grad(result, (x, *layer.parameters()), upstream)


def main() -> None:
    """Measure and print."""
    arguments = side_by_side.parser(__doc__, rounds=15).parse_args()
    ratios, lines = {}, []
    pairs: list[tuple[nn.Module, nn.Module, tuple[int, int, int]]] = [
        (Convolution(shape[1], shape[1]), nn.Conv2d(shape[1], shape[1], 3, padding=1, bias=False), shape)
        for shape in CONVOLUTIONS
    ]
    pairs += [(BatchNorm(shape[1]), nn.BatchNorm2d(shape[1]), shape) for shape in NORMS]
    for ours, theirs, (images, channels, side) in pairs:
        x = torch.randn(images, channels, side, side).bfloat16().to(memory_format=torch.channels_last)
        upstream = torch.randn_like(x)
        ways = {
            name: partial(step, layer.to(memory_format=torch.channels_last), x.requires_grad_(), upstream)
            for name, layer in (("ours", ours), ("PyTorch's", theirs))
        }
        figures, _ = side_by_side.compare(ways, "PyTorch's", arguments.rounds, images)
        name = f"{type(ours).__name__}, {images} x {channels} x {side} x {side}"
        speeds, ratios[name] = figures["images_per_second"], figures["ratios"]["ours"]
        milliseconds = ", ".join(f"{way} {1e3 * images / speed:.1f} ms" for way, speed in speeds.items())
        lines.append(f"{name:32} {milliseconds}, ratio {ratios[name]:.2f}")
    side_by_side.report(arguments.json, {"ratio": min(ratios.values()), "ratios": ratios}, lines)


if __name__ == "__main__":
    main()
