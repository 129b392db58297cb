"""What may close the gap without training anything: tried on labelled images first, and chosen by what it gains there.

    bn       batch normalisations take the statistics of the hidden images: against corruptions
    revert   the hidden images are turned back: against mistakes that can be undone
    prior    probabilities are corrected for how often each class comes: against shifted classes

A trial does to labelled images what was done to the hidden ones, and applies the measure to those.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData, Log, UsageError
from pipeline.gap import diagnosis, estimators, shift
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Images
from pipeline.gap.diagnosis import Diagnosis, Observed
from pipeline.gap.estimators import Answers
from pipeline.gap.shift import Classes
from pipeline.store.processed import ArrayName, Processed, even_rows
from pipeline.store.submissions import Adapt, Evidence, Mitigation, Outputs, with_present_names
from pipeline.training import inference
from pipeline.training.inference import Panel

LEAST = 4  # labelled images for a trial
WORTH_IT = 0.005  # of accuracy that a measure must gain in its trial
HARMLESS = 0.01  # of accuracy that it may cost where nothing is wrong


class Predictor(Protocol):
    """Networks that answer together."""

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Probabilities (N, classes) of uint8 images (N, 32, 32, 3)."""

    def adapted(self, images: Images, reference: Images) -> "Predictor":
        """The same networks, their norms adapted to images that differ from the labelled `reference`."""


@dataclass(frozen=True)
class Trial:
    """Accuracies on labelled images that were made like the hidden ones, 0..1."""

    measure: Mitigation
    before: float
    after: float
    unharmed: float  # what the measure changes on labelled images as they are

    @property
    def recommended(self) -> bool:
        """Whether it gains, and does no harm where nothing is wrong."""
        return self.after - self.before > WORTH_IT and self.unharmed > -HARMLESS


def trials_of_damage(panel: Predictor, found: Found, images: Images, truth: NDArray[np.integer]) -> list[Trial]:
    """Do what was found to labelled images (N, 32, 32, 3), and try the measures against it."""
    if not found.damages or len(images) < LEAST:
        return []
    # The reference must be other images than those that are damaged, as the hidden ones are other images.
    half = len(images) // 2
    reference, plain, truth = images[:half], images[half:], truth[half:]
    damaged = np.ascontiguousarray(found.does(plain))
    unharmed, before = (right(panel.probabilities(these), truth) for these in (plain, damaged))
    adapted, needless = (right(panel.adapted(x, reference).probabilities(x), truth) for x in (damaged, plain))
    trials = [Trial("bn", before, adapted, needless - unharmed)]
    if found.undoes is not None:
        undone = np.ascontiguousarray(found.undoes(damaged))
        # Where nothing is wrong it would do harm; but the mistake was recognised by its very pixels.
        trials.append(Trial("revert", before, right(panel.probabilities(undone), truth), 0.0))
    return trials


def trial_of_prior(local: Answers, truth: NDArray[np.integer], found: Classes) -> Trial:
    """Correct the local answers, weighted so that their classes come as often as the hidden ones'."""
    weights = found.weights(truth)
    before, after = (float((weights * (a.labels == truth)).mean()) for a in (local, shift.corrected(local, found)))
    return Trial("prior", before, after, 0.0)


def choice(adapt: Adapt, trials: Sequence[Trial]) -> Mitigation:
    """What was asked for; with "auto" the best of what its trial recommends."""
    if adapt != "auto":
        return adapt
    return max((t for t in trials if t.recommended), key=lambda t: t.after, default=_NOTHING).measure


_NOTHING = Trial("none", 0.0, 0.0, 0.0)


def right(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The share of N images whose most probable class, of probabilities (N, classes), is the true one, (N,)."""
    return float((probabilities.argmax(axis=1) == truth).mean())


# --- How an examination is kept in the evidence beside a CSV, so that check need not repeat it.


def remember(found: Diagnosis, trials: Sequence[Trial], measure: Mitigation) -> Mapping[str, Any]:
    """JSON values."""
    return {
        "diagnosis": found.to_dict(),
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "measure": measure,
    }


def recall(evidence: Evidence) -> tuple[Diagnosis, tuple[Trial, ...], Mitigation]:
    """The inverse of `remember`.

    Raises:
        BadData: it is of another version.
    """
    try:
        kept = with_present_names(evidence.diagnosis)
        trials = tuple(Trial(**with_present_names(trial)) for trial in kept["trials"])
        measure: Mitigation = kept["measure"]
        if measure not in get_args(Mitigation):
            raise ValueError(f"no measure {measure!r}")
        return Diagnosis.from_dict(kept["diagnosis"]), trials, measure
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"the evidence is of another version ({error}): predict again with --force") from error


# --- Answers to the hidden images, with the gap in mind: asked, diagnosed, and asked again with what clos


SAMPLED = 1000  # hidden and labelled images whose features are compared
COMPARED = 10_000  # hidden images in memory, of which the diagnosis takes its samples
TRIED = 3000  # labelled images on which measures are tried
ADAPTED = 2000  # hidden and labelled images whose statistics are compared


@dataclass(frozen=True)
class Local:
    """What the panel says of labelled images."""

    test: Outputs
    validation: Outputs | None
    recorded: float | None  # accuracy on the test_batch that training noted, 0..1; None: of other circumstances


@dataclass(frozen=True)
class Examined:
    """What came out, as evidence that lacks only the CSV's sha256."""

    evidence: Evidence
    diagnosis: Diagnosis
    trials: tuple[Trial, ...]
    measure: Mitigation  # that was applied


def examine(panel: Panel, data: Processed, local: Local, adapt: Adapt, log: Log) -> Examined:
    """Ask for the hidden images, say what is the matter with them, and do what `adapt` says about it.

    Raises:
        UsageError: `adapt` is a measure against something that was not found.
        BadData: a network's answers are not finite.
    """
    rows = np.arange(len(data.array("hidden_ids")))
    hidden = inference.predict(panel, data, "hidden_images", rows)
    (hidden_rows, hidden_features), (test_rows, test_features) = (
        inference.sampled_features(panel.members[0], data, name, SAMPLED) for name in ("hidden_images", "test_images")
    )
    log("predict: comparing the hidden images with the labelled ones")
    temperature = estimators.fitted(local.test, local.validation)
    seen = Observed(
        local=Answers.checked(local.test.probabilities, "test").at(temperature),
        truth=local.test.known_truth,
        hidden=Answers.sampled(hidden.probabilities, "hidden").at(temperature),
        local_rows=test_rows,
        local_features=test_features,
        hidden_features=hidden_features,
        recorded=local.recorded,
    )
    found, foreign = diagnosis.diagnose(
        seen,
        data.array("test_images"),
        _even(data, "hidden_images", COMPARED),
        data.array("train_images"),
        data.class_names,
    )
    trials = _trials(panel, data, found, seen)
    measure = choice(adapt, trials)
    if measure != "none":
        log(f"predict: diagnosis {found.verdict}, so answering again with --adapt {measure}")
        hidden = _again(measure, panel, data, found, hidden, seen.classes.ratio**temperature)
    evidence = Evidence(
        csv_sha256="",
        runs=tuple(member.name for member in panel.members),
        hidden=hidden,
        test=local.test,
        validation=local.validation,
        hidden_rows=hidden_rows,
        hidden_features=hidden_features,
        ood_scores=foreign.astype(np.float32),
        test_rows=test_rows,
        test_features=test_features,
        diagnosis=remember(found, trials, measure),
    )
    return Examined(evidence, found, tuple(trials), measure)


def _trials(panel: Panel, data: Processed, found: Diagnosis, seen: Observed) -> list[Trial]:
    """Of what is worth a trial by the verdict."""
    if found.verdict == "label_shift":
        return [trial_of_prior(seen.local, seen.truth, seen.classes)]
    rows = even_rows(len(seen.truth), TRIED)
    return trials_of_damage(panel, found.pixels, np.asarray(data.array("test_images")[rows]), seen.truth[rows])


def _again(
    measure: Mitigation, panel: Panel, data: Processed, found: Diagnosis, hidden: Outputs, ratio: NDArray[np.float64]
) -> Outputs:
    """The answers with the measure applied; `ratio` is of classes, for answers that are not calibrated."""
    if measure == "prior":
        scaled = hidden.probabilities * ratio
        return dataclasses.replace(hidden, probabilities=(scaled / scaled.sum(1, keepdims=True)).astype(np.float32))
    rows = np.arange(len(hidden))
    if measure == "bn":
        adapted = panel.adapted(*(_even(data, name, ADAPTED) for name in ("hidden_images", "test_images")))
        return inference.predict(adapted, data, "hidden_images", rows)
    undoes = found.pixels.undoes
    if undoes is None:
        raise UsageError(f"--adapt revert: nothing was found that can be undone (diagnosis {found.verdict})")
    return inference.predict(panel, data, "hidden_images", rows, prepare=undoes)


def _even(data: Processed, name: ArrayName, count: int) -> NDArray[np.uint8]:
    """At most `count` images, evenly spread."""
    found: NDArray[np.uint8] = data.rows(name, even_rows(len(data.array(name)), count))
    return found
