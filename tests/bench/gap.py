"""How well the gap is foretold.

    PIPELINE_PUBLISHED=FILE.npz python tests/bench/gap.py [--sets 300] [--json]

On published predictions (the labels that networks gave on CIFAR-10's test set and on CIFAR-10.1, with the truth; arrays
`cifar10/NETWORK`, `cifar10_1/NETWORK`, `labels_cifar10`, `labels_cifar10_1`): random sets of networks of each size, and
for each network in them the error of aline, as check uses it; for each network as the anchor, the error of the
anchored line on the others.  Errors in points, estimate minus truth.  `ratio` is the mean absolute error of aline over
three networks against that of taking local accuracy itself.
"""

import os
import sys
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.gap import estimators
from pipeline.gap.forecast import BIAS
from tests.bench import side_by_side

SIZES = (3, 4, 5, 8)
Labels = dict[str, NDArray[np.uint8]]


def published() -> tuple[Labels, Labels, dict[str, float], dict[str, float]]:
    """Labels by network, and accuracies, locally and on the shifted set."""
    file = os.environ.get("PIPELINE_PUBLISHED")
    if not file:
        raise SystemExit("set PIPELINE_PUBLISHED to the .npz of published predictions; see this file's docstring")
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


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("--sets", type=int, default=300, help="random sets of networks of each size (default: 300)")
    arguments = parser.parse_args()
    local, hidden, before, after = published()
    naive = 100 * float(np.mean([abs(before[name] - after[name]) for name in before]))
    lines = [f"{'method':28}{'estimates':>10}{'bias':>8}{'MAE':>8}{'p90':>8}{'refused':>9}"]
    found: dict[str, dict[str, float]] = {}
    generator = np.random.default_rng(0)
    for size in SIZES:
        sets = list(combinations(sorted(local), size))
        errors, refused = [], 0
        for index in generator.permutation(len(sets))[: arguments.sets]:
            names = sets[index]
            line = estimators.aline([local[n] for n in names], [hidden[n] for n in names])
            refused += line.refusal is not None
            if line.refusal is None:
                errors += [line.accuracy(before[n]) - BIAS["aline"] - after[n] for n in names]
        found[f"aline, {size} networks"] = summary(errors, refused / min(arguments.sets, len(sets)))
    anchored = [
        estimators.probit_line([(before[anchor], after[anchor])], before[other]) - after[other]
        for anchor, other in permutations(sorted(local), 2)
    ]
    found["anchored, one score"] = summary(anchored, 0.0)
    for name, of in found.items():
        values = "".join(f"{of[key]:8.2f}" for key in ("bias", "mae", "p90"))
        lines.append(f"{name:28}{of['estimates']:10.0f}{values}{100 * of['refused']:8.0f}%")
    lines.append(f"local accuracy itself errs by {naive:.2f} points")
    result = {"ratio": found["aline, 3 networks"]["mae"] / naive, "naive_mae": naive, "methods": found}
    side_by_side.report(arguments.json, result, lines)


def summary(errors: list[float], refused: float) -> dict[str, float]:
    """In points."""
    points = 100 * np.array(errors)
    return {
        "estimates": len(points), "bias": float(points.mean()), "mae": float(abs(points).mean()),
        "p90": float(np.quantile(abs(points), 0.9)), "refused": refused,
    }  # fmt: skip


if __name__ == "__main__":
    main()
