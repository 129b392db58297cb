"""How well scores are predicted of models whose predictions were published, on CIFAR-10's test set and CIFAR-10.1.

The file holds arrays of labels, `cifar10/NETWORK` and `cifar10_1/NETWORK`, and the truth, `labels_cifar10` and
`labels_cifar10_1`.  Random sets of models of each size, and for each model in them the error of aline, as check
uses it; for each model as the anchor, the error of the anchored line on the others.  Errors in points, estimate
minus truth.
"""

from contextlib import suppress
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.gap import estimators, forecast
from pipeline.gap.estimators import Refused

SIZES = (3, 4, 5, 8)


def measure(file: Path, sets: int) -> tuple[dict[str, Any], list[str]]:
    """Figures, and their lines; `sets` random sets of models of each size."""
    with np.load(file) as stored:
        values = dict(stored.items())
    names = sorted(key.removeprefix("cifar10/") for key in values if key.startswith("cifar10/"))
    models = {name: (values[f"cifar10/{name}"], values[f"cifar10_1/{name}"]) for name in names}
    before, after = (
        {name: float((models[name][k] == values[truth]).mean()) for name in names}
        for k, truth in enumerate(("labels_cifar10", "labels_cifar10_1"))
    )
    naive = 100 * float(np.mean([abs(before[name] - after[name]) for name in names]))
    found, generator = {}, np.random.default_rng(0)
    for size in SIZES:
        chosen = list(combinations(names, size))
        raw: dict[tuple[int, str], float] = {}  # aline's estimates
        picked = generator.permutation(len(chosen))[:sets].tolist()
        for index, name in [(k, name) for k in picked for name in chosen[k]]:
            with suppress(Refused):
                raw[index, name] = estimators.aline([models[one] for one in chosen[index]], before[name])
        errors = [forecast.unbiased("aline", before[name], value) - after[name] for (_, name), value in raw.items()]
        falls = [(before[name] - after[name], before[name] - value) for (_, name), value in raw.items()]
        true, said = np.mean(falls, axis=0)
        refused = 1 - len(raw) / (size * len(picked))
        found[f"aline, {size} models"] = summary(errors) | {"refused": refused, "underrated": float(true / said)}
    found["anchored, one score"] = summary([
        estimators.probit_line([(before[anchor], after[anchor])], before[other]) - after[other]
        for anchor, other in permutations(names, 2)
    ])  # fmt: skip
    lines = [f"{name}: {', '.join(f'{key} {value:.2f}' for key, value in of.items())}" for name, of in found.items()]
    lines.append(f"the holdout accuracy itself errs by {naive:.2f} points")
    return {"ratio": found["aline, 3 models"]["mae"] / naive, "naive_mae": naive, "methods": found}, lines


def summary(errors: list[float]) -> dict[str, float]:
    """In points."""
    points = 100 * np.array(errors)
    return {
        "estimates": len(points), "bias": float(points.mean()), "mae": float(abs(points).mean()),
        "p90": float(np.quantile(abs(points), 0.9)),
    }  # fmt: skip
