"""Numbers that tell images apart without looking at what they show: colour, contrast, sharpness, noise, blocks."""

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruptions import Images, channel_means, greys

NAMES = (
    "red", "green", "blue", "red - blue", "contrast", "range", "colourfulness", "saturated", "edges", "noise",
    "roughness", "blocks of 8", "blocks of 2", "impulses", "sides alike", "rows against columns",
)  # fmt: skip


QUALITY = ("roughness", "blocks of 8", "blocks of 2", "impulses")  # what natural images share, whatever they show


def measure(images: Images) -> NDArray[np.float64]:
    """Uint8 images (N, 32, 32, 3) -> (N, len(NAMES)), in units of their own."""
    values = images.astype(np.float32)
    light, means = greys(values), channel_means(values)[:, 0, 0]
    across, down = abs(np.diff(light, axis=2)), abs(np.diff(light, axis=1))
    columns, rows = across.mean(axis=1), down.mean(axis=2)  # (N, 31): by the border between two pixels
    edges = (columns.mean(axis=1) + rows.mean(axis=1)) / 2
    noise = abs(_second_difference(light)).mean(axis=(1, 2))
    colours = np.stack([values[..., 0] - values[..., 1], (values[..., 0] + values[..., 1]) / 2 - values[..., 2]])
    parts = [
        *means.T,
        means[:, 0] - means[:, 2],
        light.std(axis=(1, 2)),
        np.subtract(*np.quantile(light, (0.98, 0.02), axis=(1, 2))),
        colours.std(axis=(2, 3)).sum(axis=0),
        ((images == 0) | (images == 255)).mean(axis=(1, 2, 3)),
        np.log1p(edges),
        np.log1p(noise),
        np.log((noise + 1) / (edges + 1)),
        _excess(columns, rows, 8),
        _excess(columns, rows, 2),
        (abs(values - _neighbours(values)) > 60).mean(axis=(1, 2, 3)),
        np.log((abs(light - light[:, :, ::-1]).mean(axis=(1, 2)) + 1) / (light.std(axis=(1, 2)) + 1)),
        np.log((columns.mean(axis=1) + 1) / (rows.mean(axis=1) + 1)),
    ]
    return np.stack(parts, axis=1).astype(np.float64)


def _second_difference(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Immerkaer's mask, which answers to noise and not to edges ("Fast noise variance estimation", 1996)."""
    across = light[:, :, 2:] - 2 * light[:, :, 1:-1] + light[:, :, :-2]
    found: NDArray[np.float32] = across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2]
    return found


def _excess(columns: NDArray[np.float32], rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """How much larger steps are on the borders of squares of `size` pixels than elsewhere: a logarithm."""
    border = np.arange(1, columns.shape[1] + 1) % size == 0
    on, off = (columns[:, where].mean(axis=1) + rows[:, where].mean(axis=1) for where in (border, ~border))
    found: NDArray[np.float32] = np.log((on + 1) / (off + 1))
    return found


def _neighbours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the four neighbours, those beyond the border being the border's own."""
    wide = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    found: NDArray[np.float32] = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1]
    for side in (wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]):
        found += side
    found /= 4
    return found
