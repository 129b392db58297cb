"""Answers to the hidden images, with the gap in mind: asked, diagnosed, and asked again with what closes the gap.

The one part of gap/ that computes with networks; predict calls it, check reads what it has left.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Say, UsageError
from pipeline.gap import calibration, closing, diagnosis
from pipeline.gap.calibration import Answers
from pipeline.gap.closing import Trial
from pipeline.gap.diagnosis import Diagnosis, Observed
from pipeline.gap.memory import remember
from pipeline.store.evidence import Evidence, Said
from pipeline.store.processed import ArrayName, Processed, even_rows
from pipeline.store.sidecar import Adapt, Measure
from pipeline.training import inference
from pipeline.training.inference import Panel

SAMPLED = 1000  # hidden and labelled images whose features are compared
COMPARED = 10_000  # hidden images in memory, of which the diagnosis takes its samples
TRIED = 3000  # labelled images on which measures are tried
ADAPTED = 2000  # hidden and labelled images whose statistics are compared


@dataclass(frozen=True)
class Local:
    """What the panel says of labelled images."""

    test: Said
    validation: Said | None
    recorded: float | None  # accuracy on the test_batch that training noted, 0..1; None: of other circumstances


@dataclass(frozen=True)
class Examined:
    """What came out, as evidence that lacks only the CSV's sha256."""

    evidence: Evidence
    diagnosis: Diagnosis
    trials: tuple[Trial, ...]
    measure: Measure  # that was applied


def examine(panel: Panel, data: Processed, local: Local, adapt: Adapt, say: Say) -> Examined:
    """Ask for the hidden images, say what is the matter with them, and do what `adapt` says about it.

    Raises:
        UsageError: `adapt` is a measure against something that was not found.
        BadData: a network's answers are not finite.
    """
    rows = np.arange(len(data.array("hidden_ids")))
    hidden = inference.ask(panel, data, "hidden_images", rows)
    (hidden_rows, hidden_features), (test_rows, test_features) = (
        inference.sampled_features(panel.members[0], data, name, SAMPLED) for name in ("hidden_images", "test_images")
    )
    say("predict: comparing the hidden images with the labelled ones")
    temperature = calibration.fitted(local.test, local.validation)
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
    measure = closing.choice(adapt, trials)
    if measure != "none":
        say(f"predict: diagnosis {found.verdict}, so answering again with --adapt {measure}")
        hidden = _again(measure, panel, data, found, hidden, seen.classes.ratio**temperature)
    evidence = Evidence(
        csv_sha256="",
        runs=tuple(member.name for member in panel.members),
        hidden=hidden,
        test=local.test,
        validation=local.validation,
        hidden_rows=hidden_rows,
        hidden_features=hidden_features,
        foreign=foreign.astype(np.float32),
        test_rows=test_rows,
        test_features=test_features,
        examination=remember(found, trials, measure),
    )
    return Examined(evidence, found, tuple(trials), measure)


def _trials(panel: Panel, data: Processed, found: Diagnosis, seen: Observed) -> list[Trial]:
    """Of what is worth a trial by the verdict."""
    if found.verdict == "label_shift":
        return [closing.trial_of_prior(seen.local, seen.truth, seen.classes)]
    rows = even_rows(len(seen.truth), TRIED)
    return closing.trials_of_damage(panel, found.pixels, np.asarray(data.array("test_images")[rows]), seen.truth[rows])


def _again(
    measure: Measure, panel: Panel, data: Processed, found: Diagnosis, hidden: Said, ratio: NDArray[np.float64]
) -> Said:
    """The answers with the measure applied; `ratio` is of classes, for answers that are not calibrated."""
    if measure == "prior":
        scaled = hidden.probabilities * ratio
        return dataclasses.replace(hidden, probabilities=(scaled / scaled.sum(1, keepdims=True)).astype(np.float32))
    rows = np.arange(len(hidden))
    if measure == "norms":
        adapted = panel.adapted(*(_even(data, name, ADAPTED) for name in ("hidden_images", "test_images")))
        return inference.ask(adapted, data, "hidden_images", rows)
    undoes = found.pixels.undoes
    if undoes is None:
        raise UsageError(f"--adapt undo: nothing was found that can be undone (diagnosis {found.verdict})")
    return inference.ask(panel, data, "hidden_images", rows, prepare=undoes)


def _even(data: Processed, name: ArrayName, count: int) -> NDArray[np.uint8]:
    """At most `count` images, evenly spread."""
    found: NDArray[np.uint8] = data.rows(name, even_rows(len(data.array(name)), count))
    return found
