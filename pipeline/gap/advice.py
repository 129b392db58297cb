"""What to do about the gap, and what it may gain: by the diagnosis, by trials on the very data, and by measurements.

A gain is in points of the score.  Where it was measured locally it is carried over to the hidden images by the slope
of the line on which accuracies lie: on a harder set a local point is worth more than one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.gap.closing import Trial
from pipeline.gap.diagnosis import Diagnosis
from pipeline.gap.estimators import SLOPE, probit
from pipeline.store.sidecar import Measure, Sidecar

# Local gains in points, from tests/bench/RESULTS.md: "Preset fast", flip on test_batch, and "Several runs in one
# prediction, and a student", three runs against the best of them and their student against a run like itself.
FLIP, ENSEMBLE, STUDENT = 1.12, 1.62, 0.96
OWN = "in a trial on labelled images made like the hidden ones"


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    do: str
    gain: float | None  # points of the score; None: not measured
    source: str  # of the gain, to follow "points"

    def __str__(self) -> str:
        gain = "gain not measured" if self.gain is None else f"{self.gain:+.1f} points {self.source}"
        return f"{self.do} ({gain})"


def advise(
    card: Sidecar, found: Diagnosis, trials: Sequence[Trial], measure: Measure, local: float, predicted: float
) -> list[Step]:
    """What to do next, the most promising first; accuracies 0..1."""
    steps = sorted(_measures(trials, measure), key=lambda step: -(step.gain or 0))
    if found.verdict == "preprocessing" and not found.pixels.damages:
        steps.append(Step("predict on the machine that has trained, or train again on this one", None, ""))
    if found.verdict == "corruption":
        steps.append(Step("train with corrupted images: `train --policy augmix`", None, ""))
    if found.verdict == "unknown":
        steps.append(Step("look at the images: `check --pictures submissions`", None, ""))
    return [*steps, *_better(card, worth_of_a_point(local, predicted))]


def _measures(trials: Sequence[Trial], measure: Measure) -> list[Step]:
    """Measures that were tried: those applied, and those that would gain."""
    steps = []
    for trial in trials:
        gain = 100 * (trial.after - trial.before)
        if trial.measure == measure and gain > 0:
            steps.append(Step(f"keep --adapt {measure}, which is applied", gain, OWN))
        elif trial.measure == measure:
            steps.append(Step(f"`predict --adapt none`: {measure} is applied and loses", -gain, OWN))
        elif measure == "none" and trial.recommended:
            steps.append(Step(f"`predict --adapt {trial.measure}`", gain, OWN))
    return steps


def _better(card: Sidecar, worth: float) -> list[Step]:
    """What makes any network better, as far as it is not done yet."""
    source = f"as measured locally, where a point is worth {worth:.1f} here"
    steps = []
    if len(card.runs) < 2:
        steps.append(Step("average three seeds: `predict --run A B C`", worth * ENSEMBLE, source))
    if card.tta == "none" and card.mirrored:
        steps.append(Step("average with the mirror images: `predict --tta flip`", worth * FLIP, source))
    steps.append(Step("one network taught by three: `train --teacher A B C`", worth * STUDENT, source))
    return steps


def worth_of_a_point(local: float, predicted: float) -> float:
    """Points of the score for one more local point: the derivative of the probit line of slope .85."""
    z, hidden = probit(local), probit(predicted)
    return SLOPE * math.exp((z**2 - hidden**2) / 2)
