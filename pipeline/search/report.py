"""What a sweep found: the best trials, what mattered, and plots."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from pipeline.search.space import Space
from pipeline.search.study import ranking

BEST = 5  # trials in the table
ENOUGH = 10  # complete trials, below which importances are noise


def settings(params: dict[str, Any]) -> str:
    """A trial's values on one line, as in `learning_rate=0.0312 optimizer=sgd`."""
    return " ".join(f"{name}={brief(value)}" for name, value in params.items())


def brief(value: object) -> str:
    """A value for people: numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(trials: Sequence[FrozenTrial]) -> list[str]:
    """The first of `trials`, one a line below a header, in columns."""
    fields = list(trials[0].params)
    rows = [["trial", "validation", *fields]]
    rows += [
        [str(trial.number), f"{trial.value:.2f} %", *(brief(trial.params[field]) for field in fields)]
        for trial in trials[:BEST]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def importances(study: Study, space: Space) -> dict[str, float]:
    """Each varied field's share of the variance of the accuracies (fANOVA), the largest first.

    Empty with too few complete trials to tell, or a single field, or equal accuracies.
    """
    trials = ranking(study)
    if len(trials) < ENOUGH or len(space.varied) < 2 or trials[0].value == trials[-1].value:
        return {}
    # This imports scikit-learn, which takes a second.
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # noqa: PLC0415

    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=space.varied)


def plot(study: Study, space: Space, stem: Path) -> list[Path]:
    """Write STEM-history.png, and STEM-slice.png with a panel for each varied field; returns their paths."""
    # Another second.
    from matplotlib import pyplot  # noqa: PLC0415
    from optuna.visualization import matplotlib as draw  # noqa: PLC0415

    pyplot.switch_backend("agg")  # files only: there may be no display
    what = "validation accuracy (%)"
    drawings: dict[str, Callable[[], object]] = {
        "history": lambda: draw.plot_optimization_history(study, target_name=what)
    }
    if space.varied:
        drawings["slice"] = lambda: draw.plot_slice(study, params=space.varied, target_name=what)
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of axes that are narrow while there are few trials
        for name, make in drawings.items():
            make()
            written.append(stem.with_name(f"{stem.name}-{name}.png"))
            pyplot.savefig(written[-1], bbox_inches="tight")
            pyplot.close("all")
    return written
