"""How well one network's score is predicted where natural images are harder.

    PIPELINE_PROCESSED=DIR python tests/bench/natural.py --competition SLUG --models DIR --runs pretrained B C

Each run is assessed alone, by its validation split.  Its test sets of 1,500 images are drawn from the test_batch by
how hard the other runs find an image, both or one: how probable they hold another label, or whether they give one.
Errors in points: now, and of Garg's atc, by entropy and uncorrected.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import Paths
from pipeline.gap.estimators import calibrated, negative_entropy
from pipeline.gap.forecast import forecast
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import Processed
from pipeline.store.submissions import accuracy
from pipeline.training.device import choose
from pipeline.training.inference import Panel, load, predict_holdout
from tests.bench import side_by_side

EASY, SIZE, SEEDS = (0.5, 0.2, 0.06, 0.02), 1500, (11, 21, 22, 23, 31)  # EASY: what an easy image weighs, a hard one 1


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--competition", required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", required=True)
    arguments = parser.parse_args()
    data = Processed.open(side_by_side.processed() / arguments.competition)
    outputs, figures, lines = {}, {}, []
    for name in arguments.runs:
        run = Ensemble.open(arguments.models, Paths().pretrained, [name])
        outputs[name] = predict_holdout(run, Panel(load(run.runs, choose("auto")), "none", 500), data)
    for name, (pool, holdout) in outputs.items():
        assert holdout is not None, f"run {name} has no validation split of these images"
        _, known, asked = calibrated(holdout, None, pool)
        local, truth = accuracy(holdout.labels, holdout.known_truth), pool.known_truth
        others = [of for other, (of, _) in outputs.items() if other != name]
        errors, every = [], np.arange(len(truth))
        for scorers, missed, easy, seed in product([others, *([of] for of in others)], (0, 1), EASY, SEEDS):
            hard = [(1 - of.probabilities[every, truth], of.labels != truth)[missed] for of in scorers]
            weights = easy + np.mean(hard, axis=0)
            rows = np.random.default_rng(seed).choice(len(truth), SIZE, replace=False, p=weights / weights.sum())
            made = forecast(accuracy=local, holdout=known, hidden=asked[rows], verdict="natural", scored_rows=SIZE)
            right, (low, high) = accuracy(pool.labels[rows], truth[rows]), made.interval
            garg = (negative_entropy(asked[rows]) >= np.quantile(negative_entropy(known), 1 - local)).mean()
            errors.append([abs(made.predicted - right), abs(garg - right), low <= right <= high])
        now, before, inside = np.array(errors).T
        values = np.median(now), now.mean(), np.median(before), inside.mean()
        figures[name] = dict(zip(("median", "mean", "garg", "covered"), 100 * np.array(values), strict=True))
        lines.append(f"{name:12}{len(now)} sets: " + ", ".join(f"{k} {v:.2f}" for k, v in figures[name].items()))
    side_by_side.report(arguments.json, figures, lines)


if __name__ == "__main__":
    main()
