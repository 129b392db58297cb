"""The learning rate as a pure function of the step, so that no state of it needs saving."""

import math
from collections.abc import Callable, Mapping

DROPS = (0.5, 0.75)  # shares of the run after which "step" divides the rate by ten, as He et al. (2015) did
ONE_CYCLE_START = 1 / 25  # of the peak (Smith and Topin 2017, as torch's OneCycleLR has it)


def learning_rate(step: int, total_steps: int, warmup_steps: float, peak: float, shape: str = "linear") -> float:
    """The rate of step `step` (0-based) under the schedule `shape`, one of SHAPES.

    It rises linearly from 0 (one-cycle: as a cosine, from a 25th of the peak) over the warm-up, then falls to 0,
    or with "step" to a tenth, twice.  The first step's rate is above 0 (a step at rate 0 would be wasted), and 0
    would be reached by the step after the last.
    """
    rising = (step + 1) / warmup_steps if warmup_steps > 0 else 1.0
    if shape == "one-cycle" and rising < 1:
        return peak * (ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - math.cos(math.pi * rising)) / 2)
    left = (total_steps - step) / (total_steps - warmup_steps) if warmup_steps < total_steps else 1.0
    return peak * min(rising, SHAPES[shape](min(left, 1.0), step / total_steps))


def _linear(left: float, _done: float) -> float:
    return left


def _cosine(left: float, _done: float) -> float:
    return (1 - math.cos(math.pi * left)) / 2


def _step(_left: float, done: float) -> float:
    return float(0.1 ** sum(done >= drop for drop in DROPS))


# From the share of the fall that is left (1 .. 0) and the share of the run that is done to a share of the peak.
SHAPES: Mapping[str, Callable[[float, float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "step": _step,
    "one-cycle": _cosine,
}
