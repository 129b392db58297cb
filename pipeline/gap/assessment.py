"""What a CSV is worth before it is submitted: its evidence, the other runs' and the known scores, put together.

Accuracies here are fractions in 0..1; the ledger's are in per cent.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Competition
from pipeline.errors import BadData
from pipeline.gap import estimators
from pipeline.gap.adapt import Trial, recall
from pipeline.gap.diagnosis import APART, Diagnosis
from pipeline.gap.estimators import ENOUGH, SLOPE, Answers, probit
from pipeline.gap.forecast import Forecast, Known, forecast
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import Evidence, LocalCsv, Mitigation, Sidecar

# --- What to do about the gap, and what it may gain: by the diagnosis, by trials on the very data, and by


# Local gains in points, from tests/bench/RESULTS.md: "Preset fast", flip on test_batch, and "Several runs in one
# prediction, and a student", three runs against the best of them and their student against a run like itself.
FLIP, ENSEMBLE, STUDENT = 1.12, 1.62, 0.96
OWN = "in a trial on labelled images made like the hidden ones"


@dataclass(frozen=True)
class Advice:
    """One thing to do."""

    do: str
    gain: float | None  # points of the score; None: not measured
    source: str  # of the gain, to follow "points"

    def __str__(self) -> str:
        gain = "gain not measured" if self.gain is None else f"{self.gain:+.1f} points {self.source}"
        return f"{self.do} ({gain})"


def advise(
    card: Sidecar, found: Diagnosis, trials: Sequence[Trial], measure: Mitigation, local: float, predicted: float
) -> list[Advice]:
    """What to do next, the most promising first; accuracies 0..1."""
    steps = sorted(_measures(trials, measure), key=lambda step: -(step.gain or 0))
    if found.verdict == "preprocessing" and not found.pixels.damages:
        steps.append(Advice("predict on the machine that has trained, or train again on this one", None, ""))
    if found.verdict == "corruption":
        steps.append(Advice("train with stronger augmentation: `train --policy trivialaugment`", None, ""))
    if found.verdict == "unknown":
        steps.append(Advice("look at the images: `check --pictures submissions`", None, ""))
    return [*steps, *_better(card, worth_of_a_point(local, predicted))]


def _measures(trials: Sequence[Trial], measure: Mitigation) -> list[Advice]:
    """Measures that were tried: those applied, and those that would gain."""
    steps = []
    for trial in trials:
        gain = 100 * (trial.after - trial.before)
        if trial.measure == measure and gain > 0:
            steps.append(Advice(f"keep --adapt {measure}, which is applied", gain, OWN))
        elif trial.measure == measure:
            steps.append(Advice(f"`predict --adapt none`: {measure} is applied and loses", -gain, OWN))
        elif measure == "none" and trial.recommended:
            steps.append(Advice(f"`predict --adapt {trial.measure}`", gain, OWN))
    return steps


def _better(card: Sidecar, worth: float) -> list[Advice]:
    """What makes any network better, as far as it is not done yet."""
    source = f"as measured locally, where a point is worth {worth:.1f} here"
    steps = []
    if len(card.runs) < 2:
        steps.append(Advice("average three seeds: `predict --run A B C`", worth * ENSEMBLE, source))
    if card.tta == "none" and card.mirrored:
        steps.append(Advice("average with the mirror images: `predict --tta flip`", worth * FLIP, source))
    steps.append(Advice("one network taught by three: `train --teacher A B C`", worth * STUDENT, source))
    return steps


def worth_of_a_point(local: float, predicted: float) -> float:
    """Points of the score for one more local point: the derivative of the probit line of slope .85."""
    z, hidden = probit(local), probit(predicted)
    return SLOPE * math.exp((z**2 - hidden**2) / 2)


Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Assessment:
    """A CSV and what is expected of it."""

    csv: LocalCsv
    evidence: Evidence = field(repr=False, compare=False)
    forecast: Forecast
    temperature: float
    diagnosis: Diagnosis
    trials: tuple[Trial, ...]
    measure: Mitigation

    def whole(self) -> Evidence:
        """The evidence with all answers: of very many hidden images a judgement knows some.

        Raises:
            BadData: it is damaged.
        """
        if len(self.evidence.hidden) == self.csv.sidecar.rows:
            return self.evidence
        return Evidence.read(self.csv.path) or self.evidence

    @property
    def advice(self) -> list[Advice]:
        """What to do next."""
        card = self.csv.sidecar
        local, predicted = card.test_accuracy / 100, self.forecast.predicted
        return advise(card, self.diagnosis, self.trials, self.measure, local, predicted)


def assess(csv: LocalCsv, others: Sequence[LocalCsv], entries: Sequence[Entry], known: Competition) -> Assessment:
    """Predict the public score of `csv`.

    Args:
        csv: a CSV that predict wrote.
        others: the CSVs beside it: their runs' labels count where they are of the same hidden images.
        entries: the ledger's lines.
        known: the competition.

    Raises:
        BadData: there is no evidence of the CSV, or it is damaged or another's.
    """
    evidence = _evidence(csv)
    temperature = estimators.fitted(evidence.test, evidence.validation)
    diagnosis, trials, measure = recall(evidence)
    states, foretold = ledger.current(entries, known.slug), ledger.predictions(entries, known.slug)
    scored = {e.csv_sha256: e for e in states if e.public is not None and e.csv_sha256 != csv.sidecar.csv_sha256}
    return Assessment(
        csv,
        evidence,
        forecast(
            Known(
                local=Answers.checked(evidence.test.probabilities, "test"),
                truth=evidence.test.known_truth,
                hidden=Answers.sampled(evidence.hidden.probabilities, "hidden"),
                temperature=temperature,
                peers=_peers(csv, evidence, others),
                anchors=[
                    (e.local_test / 100, e.public / 100)
                    for e in scored.values()
                    if e.local_test is not None and e.public is not None
                ],
                line=known.line,
                errors=[
                    error / 100
                    for sha, entry in scored.items()
                    if (error := miss(foretold.get(sha), entry)) is not None
                ],
                scored_rows=known.public_rows,
                simulated=_simulated(trials, measure),
                corrupted=diagnosis.verdict == "corruption",
                mixed=len(diagnosis.pixels.damages) > 1,
                alarms=_alarms(diagnosis, csv.sidecar, measure),
            )
        ),
        temperature,
        diagnosis,
        trials,
        measure,
    )


def _simulated(trials: Sequence[Trial], measure: Mitigation) -> float | None:
    """The accuracy on labelled images made like the hidden ones, with the measure that was applied."""
    if measure == "none":
        return trials[0].before if trials else None
    return next((trial.after for trial in trials if trial.measure == measure), None)


def _alarms(diagnosis: Diagnosis, card: Sidecar, measure: Mitigation) -> list[str]:
    """Why the answers cannot be trusted."""
    if card.pseudo_labels:
        return ["a run has learned labels of the hidden images: that it is sure of them says nothing"]
    if measure == "prior" and diagnosis.verdict != "label_shift":
        return ["--adapt prior makes the network surer of classes of which nothing says that they come more often"]
    if diagnosis.pixels.damages or diagnosis.verdict == "label_shift":
        return []
    if diagnosis.verdict in ("preprocessing", "corruption"):
        return [diagnosis.reason]
    if diagnosis.auc > APART or diagnosis.verdict == "unknown":
        return [f"the network knows nothing like the hidden images (AUC {diagnosis.auc:.2f})"]
    return []


def miss(foretold: Entry | None, scored: Entry) -> float | None:
    """Predicted minus public score in points, or None where one is unknown."""
    if foretold is None or foretold.predicted is None or scored.public is None:
        return None
    return foretold.predicted - scored.public


def is_recorded(book: Path, csv_sha256: str) -> bool:
    """Whether the ledger has a prediction of this CSV, or its score, after which there is nothing to predict."""
    return any(
        e.csv_sha256 == csv_sha256 and (e.status == ledger.PREDICTED or e.public is not None) for e in ledger.read(book)
    )


def record(book: Path, judged: Assessment, now: datetime) -> None:
    """Write the prediction into the ledger, unless it has one of this CSV, or its score, already."""
    card = judged.csv.sidecar
    if is_recorded(book, card.csv_sha256):
        return
    low, high = judged.forecast.interval
    ledger.append(
        book,
        [
            Entry(
                time=now.isoformat(timespec="seconds"),
                competition=card.competition,
                run=card.run,
                csv_sha256=card.csv_sha256,
                ref=None,
                local_validation=card.validation_accuracy,
                local_test=card.test_accuracy,
                public=None,
                private=None,
                status=ledger.PREDICTED,
                note=judged.forecast.by,
                predicted=round(100 * judged.forecast.predicted, 3),
                predicted_low=round(100 * low, 3),
                predicted_high=round(100 * high, 3),
            )
        ],
    )


def _evidence(csv: LocalCsv) -> Evidence:
    evidence = Evidence.read(csv.path, most=ENOUGH)
    if evidence is None or evidence.csv_sha256 != csv.sidecar.csv_sha256:
        raise BadData(f"{csv.path} has no evidence beside it to judge it by: predict again with --force")
    return evidence


def _peers(csv: LocalCsv, evidence: Evidence, others: Sequence[LocalCsv]) -> list[tuple[Labels, Labels]]:
    """The labels of each run at hand on the test_batch and on the hidden images, each network once."""
    found: dict[str, tuple[Labels, Labels]] = {}
    for other in [csv, *others]:
        if other.sidecar.hidden != csv.sidecar.hidden:
            continue
        try:
            said = evidence if other is csv else _evidence(other)
        except BadData:
            continue  # it cannot help; where it is the one to be judged, it is complained about
        if np.array_equal(said.test.known_truth, evidence.test.known_truth):
            for local, hidden in zip(said.test.members, said.hidden.members, strict=True):
                found[hashlib.sha256(local.tobytes() + hidden.tobytes()).hexdigest()] = (local, hidden)
    return list(found.values())
