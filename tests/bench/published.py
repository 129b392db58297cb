"""How well scores are foretold of networks whose predictions were published, on CIFAR-10's test set and on CIFAR-10.1.

The file holds arrays of labels, `cifar10/NETWORK` and `cifar10_1/NETWORK`, and the truth, `labels_cifar10` and
`labels_cifar10_1`.  Random sets of networks of each size, and for each network in them the error of aline, as check
uses it; for each network as the anchor, the error of the anchored line on the others.  Errors in points, estimate
minus truth.
"""

from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.gap import estimators, forecast

SIZES = (3, 4, 5, 8)
Labels = dict[str, NDArray[np.uint8]]


def read(file: Path) -> tuple[Labels, Labels, dict[str, float], dict[str, float]]:
    """Labels by network, and accuracies, locally and on the shifted set."""
    with np.load(file) as stored:
        values = dict(stored.items())
    local, hidden = (
        {key.removeprefix(of): labels for key, labels in values.items() if key.startswith(of)}
        for of in ("cifar10/", "cifar10_1/")
    )
    right = [
        {name: float((labels == values[truth]).mean()) for name, labels in of.items()}
        for of, truth in ((local, "labels_cifar10"), (hidden, "labels_cifar10_1"))
    ]
    return local, hidden, right[0], right[1]


def measure(file: Path, sets: int) -> tuple[dict[str, Any], list[str]]:
    """Figures, and lines for people; `sets` random sets of networks of each size."""
    local, hidden, before, after = read(file)
    naive = 100 * float(np.mean([abs(before[name] - after[name]) for name in before]))
    lines = [f"{'method':28}{'estimates':>10}{'bias':>8}{'MAE':>8}{'p90':>8}{'refused':>9}{'underrated':>12}"]
    found: dict[str, dict[str, float]] = {}
    generator = np.random.default_rng(0)
    for size in SIZES:
        chosen = list(combinations(sorted(local), size))
        errors, falls, refused = [], [], 0
        for index in generator.permutation(len(chosen))[:sets]:
            names = chosen[index]
            line = estimators.aline([(local[name], hidden[name]) for name in names])
            for name in names:
                if line.refusal(before[name]):
                    refused += 1
                    continue
                raw = line.accuracy(before[name])
                falls.append((before[name] - after[name], before[name] - raw))
                errors.append(forecast.unbiased("aline", before[name], raw) - after[name])
        found[f"aline, {size} networks"] = summary(errors, refused / (size * min(sets, len(chosen))))
        true, said = np.mean(falls, axis=0)
        found[f"aline, {size} networks"]["underrated"] = float(true / said)
    anchored = [
        estimators.probit_line([(before[anchor], after[anchor])], before[other]) - after[other]
        for anchor, other in permutations(sorted(local), 2)
    ]
    found["anchored, one score"] = summary(anchored, 0.0)
    for name, of in found.items():
        values = "".join(f"{of[key]:8.2f}" for key in ("bias", "mae", "p90"))
        times = f"{of['underrated']:12.2f}" if "underrated" in of else ""
        lines.append(f"{name:28}{of['estimates']:10.0f}{values}{100 * of['refused']:8.0f}%{times}")
    lines.append(f"local accuracy itself errs by {naive:.2f} points")
    return {"ratio": found["aline, 3 networks"]["mae"] / naive, "naive_mae": naive, "methods": found}, lines


def summary(errors: list[float], refused: float) -> dict[str, float]:
    """In points."""
    points = 100 * np.array(errors)
    return {
        "estimates": len(points), "bias": float(points.mean()), "mae": float(abs(points).mean()),
        "p90": float(np.quantile(abs(points), 0.9)), "refused": refused,
    }  # fmt: skip
