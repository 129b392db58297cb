"""What may close the gap without training anything: tried on labelled images first, and chosen by what it gains there.

    norms    batch normalisations take the statistics of the hidden images: against corruptions
    undo     the hidden images are turned back: against mistakes that can be undone
    prior    probabilities are corrected for how often each class comes: against shifted classes

A trial does to labelled images what was done to the hidden ones, and applies the measure to those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.gap import shift
from pipeline.gap.calibration import Answers
from pipeline.gap.corruptions import Images
from pipeline.gap.damage import Found
from pipeline.gap.shift import Classes
from pipeline.store.sidecar import Adapt, Measure

LEAST = 4  # labelled images for a trial
WORTH_IT = 0.005  # of accuracy that a measure must gain in its trial
HARMLESS = 0.01  # of accuracy that it may cost where nothing is wrong


class Panel(Protocol):
    """Networks that answer together."""

    def answers(self, images: Images) -> NDArray[np.float32]:
        """Probabilities (N, classes) of uint8 images (N, 32, 32, 3)."""

    def adapted(self, images: Images, reference: Images) -> "Panel":
        """The same networks, their norms adapted to images that differ from the labelled `reference`."""


@dataclass(frozen=True)
class Trial:
    """Accuracies on labelled images that were made like the hidden ones, 0..1."""

    measure: Measure
    before: float
    after: float
    unharmed: float  # what the measure changes on labelled images as they are

    @property
    def recommended(self) -> bool:
        """Whether it gains, and does no harm where nothing is wrong."""
        return self.after - self.before > WORTH_IT and self.unharmed > -HARMLESS


def trials_of_damage(panel: Panel, found: Found, images: Images, truth: NDArray[np.integer]) -> list[Trial]:
    """Do what was found to labelled images (N, 32, 32, 3), and try the measures against it."""
    if not found.damages or len(images) < LEAST:
        return []
    # The reference must be other images than those that are damaged, as the hidden ones are other images.
    half = len(images) // 2
    reference, plain, truth = images[:half], images[half:], truth[half:]
    damaged = np.ascontiguousarray(found.does(plain))
    unharmed, before = (right(panel.answers(these), truth) for these in (plain, damaged))
    adapted, needless = (right(panel.adapted(x, reference).answers(x), truth) for x in (damaged, plain))
    trials = [Trial("norms", before, adapted, needless - unharmed)]
    if found.undoes is not None:
        undone = np.ascontiguousarray(found.undoes(damaged))
        # Where nothing is wrong it would do harm; but the mistake was recognised by its very pixels.
        trials.append(Trial("undo", before, right(panel.answers(undone), truth), 0.0))
    return trials


def trial_of_prior(local: Answers, truth: NDArray[np.integer], found: Classes) -> Trial:
    """Correct the local answers, weighted so that their classes come as often as the hidden ones'."""
    weights = found.weights(truth)
    before, after = (float((weights * (a.labels == truth)).mean()) for a in (local, shift.corrected(local, found)))
    return Trial("prior", before, after, 0.0)


def choice(adapt: Adapt, trials: Sequence[Trial]) -> Measure:
    """What was asked for; with "auto" the best of what its trial recommends."""
    if adapt != "auto":
        return adapt
    return max((t for t in trials if t.recommended), key=lambda t: t.after, default=_NOTHING).measure


_NOTHING = Trial("none", 0.0, 0.0, 0.0)


def right(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The share of N images whose most probable class, of probabilities (N, classes), is the true one, (N,)."""
    return float((probabilities.argmax(axis=1) == truth).mean())
