"""What a CSV will score, before it is submitted: its evidence, the other runs' and the known scores, put together.

And what to do about the gap, by the diagnosis, by trials on labelled images, and by what was measured locally.
Accuracies here are fractions in 0..1; the ledger's are in per cent.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Competition
from pipeline.errors import BadData
from pipeline.gap import estimators
from pipeline.gap.diagnosis import FEATURES_APART, Findings
from pipeline.gap.estimators import ENOUGH_IMAGES, PROBIT_SLOPE, Labels, probit
from pipeline.gap.forecast import Forecast, forecast
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import Evidence, LocalCsv, Sidecar, accuracy

# Local gains in points, from tests/bench/RESULTS.md: "Preset fast", flip on test_batch, and "Several runs in one
# prediction, and a student", three runs against the best of them and their student against a run like itself.
FLIP, ENSEMBLE, STUDENT = 1.12, 1.62, 0.96
OWN = "in a trial on labelled images made like the hidden ones"
ADVISED = 4  # pieces of advice in a summary


@dataclass(frozen=True)
class Advice:
    """One thing to do."""

    do: str
    gain: float | None  # points of the score; None: not measured
    source: str  # of the gain, to follow "points"

    def __str__(self) -> str:
        gain = "gain not measured" if self.gain is None else f"{self.gain:+.1f} points {self.source}"
        return f"{self.do} ({gain})"


@dataclass(frozen=True)
class Assessment:
    """A CSV and the public score that is predicted for it."""

    csv: LocalCsv
    evidence: Evidence = field(repr=False, compare=False)
    temperature: float
    findings: Findings
    forecast: Forecast

    @property
    def advice(self) -> list[Advice]:
        """What to do next, the most promising first."""
        verdict, sidecar = self.findings.diagnosis.verdict, self.csv.sidecar
        worth = worth_of_a_point(sidecar.test_accuracy / 100, self.forecast.predicted)
        measured = f"as measured locally, where a point is worth {worth:.1f} here"
        computed_otherwise = verdict == "preprocessing" and not self.findings.diagnosis.pixels.corruptions
        flips = sidecar.tta == "none" and sidecar.mirrored
        ways: list[tuple[bool, str, float | None]] = [
            (computed_otherwise, "predict on the machine that has trained, or train again on this one", None),
            (verdict == "corruption", "train with stronger augmentation: `train --policy trivialaugment`", None),
            (verdict == "unknown", "look at the images: `check --pictures submissions`", None),
            (len(sidecar.runs) < 2, "average three seeds: `predict --run A B C`", worth * ENSEMBLE),
            (flips, "average with the mirror images: `predict --tta flip`", worth * FLIP),
            (True, "one network taught by three: `train --teacher A B C`", worth * STUDENT),
        ]
        tried = sorted(_mitigations(self.findings), key=lambda each: -(each.gain or 0))
        return tried + [Advice(do, gain, measured if gain else "") for is_open, do, gain in ways if is_open]

    def to_dict(self) -> dict[str, Any]:
        """For --json.  Accuracies in per cent, gains in points."""
        made = self.forecast
        return {
            "predicted": _per_cent(made.predicted),
            "interval": [_per_cent(limit) for limit in made.interval],
            "by": made.by,
            "methods": {name: _per_cent(value) for name, value in made.methods.items()},
            "refused": made.refused,
            "reliable": not made.doubts,
            "doubts": made.doubts,
            "temperature": round(self.temperature, 3),
            "verdict": self.findings.diagnosis.verdict,
            **self.findings.to_dict(),
            "advice": [asdict(advice) for advice in self.advice],
        }

    def summary(self) -> list[str]:
        """The prediction, the diagnosis and the advice, a line each."""
        made, seen, pixels = self.forecast, self.findings.diagnosis, self.findings.diagnosis.pixels
        low, high = made.interval
        others = ", ".join(f"{name} {100 * value:.1f}" for name, value in made.methods.items() if name != made.by)
        refused = "; ".join(f"no {name}: {reason}" for name, reason in made.refused.items())
        return [
            f"{self.csv.path}: local {self.csv.sidecar.test_accuracy:.2f} %, expected public score "
            f"{100 * made.predicted:.1f} % (90 %: {100 * low:.1f} to {100 * high:.1f}) by {made.by}",
            f"other methods: {others}" + (f" ({refused})" if refused else ""),
            *([f"UNRELIABLE: {'; '.join(made.doubts)}"] if made.doubts else []),
            f"diagnosis {seen.verdict}: {seen.reason}",
            f"size of effects: pixels {pixels.distance:.2f} (noticeable from {pixels.limit:.2f}), "
            f"features AUC {seen.auc:.2f} (.50), unsure {100 * seen.harder:.0f} % ({100 * seen.harder_limit:.0f}), "
            f"classes moved {100 * seen.label_distance:.0f} %, "
            f"near duplicates of training images {100 * seen.alike[0]:.1f} % (locally {100 * seen.alike[1]:.1f})",
            *(f"next: {advice}" for advice in self.advice[:ADVISED]),
        ]


def _mitigations(findings: Findings) -> list[Advice]:
    """Mitigations that were tried: those applied, and those that would gain."""
    advice = []
    for trial in findings.trials:
        gain = 100 * (trial.after - trial.before)
        if trial.mitigation == findings.mitigation and gain > 0:
            advice.append(Advice(f"keep --adapt {trial.mitigation}, which is applied", gain, OWN))
        elif trial.mitigation == findings.mitigation:
            advice.append(Advice(f"`predict --adapt none`: {trial.mitigation} is applied and loses", -gain, OWN))
        elif findings.mitigation == "none" and trial.recommended:
            advice.append(Advice(f"`predict --adapt {trial.mitigation}`", gain, OWN))
    return advice


def worth_of_a_point(local: float, predicted: float) -> float:
    """Points of the score for one more local point: the derivative of the probit line of slope .85."""
    return PROBIT_SLOPE * math.exp((probit(local) ** 2 - probit(predicted) ** 2) / 2)


def assess(csv: LocalCsv, others: Sequence[LocalCsv], entries: Sequence[Entry], competition: Competition) -> Assessment:
    """Predict the public score of `csv`, also by the runs of the `others` beside it and by the ledger's `entries`.

    Raises:
        BadData: there is no evidence of the CSV, or it is damaged or another's.
    """
    evidence, sha256 = Evidence.read(csv, most=ENOUGH_IMAGES), csv.sidecar.csv_sha256
    findings = Findings.from_dict(evidence.findings)
    temperature, holdout, hidden = estimators.calibrated(evidence.holdout, evidence.validation, evidence.hidden)
    predictions, states = ledger.predictions(entries, competition.slug), ledger.current(entries, competition.slug)
    scored = {e.csv_sha256: e for e in states if e.public is not None and e.csv_sha256 != sha256}
    errors = [prediction_error(predictions.get(sha), entry) for sha, entry in scored.items()]
    made = forecast(
        accuracy=accuracy(evidence.holdout.labels, evidence.holdout.known_truth),
        holdout=holdout,
        hidden=hidden,
        peers=_peers(csv, evidence, others),
        anchors=[
            (e.local_test / 100, e.public / 100)
            for e in scored.values()
            if e.local_test is not None and e.public is not None
        ],
        line=competition.line,
        simulated=_simulated(findings),
        corrupted=findings.diagnosis.verdict == "corruption",
        mixed=len(findings.diagnosis.pixels.corruptions) > 1,
        alarms=_alarms(findings, csv.sidecar),
        errors=[error / 100 for error in errors if error is not None],
        scored_rows=competition.public_rows,
    )
    return Assessment(csv, evidence, temperature, findings, made)


def _peers(csv: LocalCsv, evidence: Evidence, others: Sequence[LocalCsv]) -> list[tuple[Labels, Labels]]:
    """The labels of each run at hand on the test_batch and on the hidden images, each model once."""
    seen = [evidence]
    for other in others:
        if other.sidecar.hidden == csv.sidecar.hidden and other is not csv:
            with suppress(BadData):  # it cannot help; where it is the one to be assessed, it is complained about
                seen.append(Evidence.read(other, most=ENOUGH_IMAGES))
    return list({
        local.tobytes() + hidden.tobytes(): (local, hidden)
        for its in seen
        if np.array_equal(its.holdout.known_truth, evidence.holdout.known_truth)
        for local, hidden in zip(its.holdout.members, its.hidden.members, strict=True)
    }.values())  # fmt: skip


def _simulated(findings: Findings) -> float | None:
    """The accuracy on labelled images made like the hidden ones, with the mitigation that was applied."""
    if findings.mitigation == "none":
        return findings.trials[0].before if findings.trials else None
    return next((trial.after for trial in findings.trials if trial.mitigation == findings.mitigation), None)


def _alarms(findings: Findings, sidecar: Sidecar) -> list[str]:
    """Why the probabilities cannot be trusted."""
    diagnosis = findings.diagnosis
    if sidecar.pseudo_labels:
        return ["a run has learned labels of the hidden images: that it is sure of them says nothing"]
    if findings.mitigation == "prior" and diagnosis.verdict != "label_shift":
        return ["--adapt prior makes the network surer of classes of which nothing says that they come more often"]
    if diagnosis.pixels.corruptions or diagnosis.verdict == "label_shift":
        return []
    if diagnosis.verdict in ("preprocessing", "corruption"):
        return [diagnosis.reason]
    if diagnosis.auc > FEATURES_APART or diagnosis.verdict == "unknown":
        return [f"the network knows nothing like the hidden images (AUC {diagnosis.auc:.2f})"]
    return []


def prediction_error(predicted: Entry | None, scored: Entry) -> float | None:
    """Predicted minus public score in points, or None where one is unknown."""
    if predicted is None or predicted.predicted is None or scored.public is None:
        return None
    return predicted.predicted - scored.public


def is_recorded(entries: Sequence[Entry], csv_sha256: str) -> bool:
    """Whether the ledger has a prediction of this CSV, or its score, after which there is nothing to predict."""
    return any(e.csv_sha256 == csv_sha256 and (e.status == ledger.PREDICTED or e.public is not None) for e in entries)


def record(path: Path, entries: Sequence[Entry], assessment: Assessment, now: datetime) -> list[Entry]:
    """Write the prediction into the ledger at `path`, unless its `entries` have one of this CSV; all its lines then."""
    sidecar, made = assessment.csv.sidecar, assessment.forecast
    if is_recorded(entries, sidecar.csv_sha256):
        return list(entries)
    low, high = map(_per_cent, made.interval)
    line = replace(
        Entry.of(sidecar), time=now.isoformat(timespec="seconds"), status=ledger.PREDICTED, note=made.by,
        predicted=_per_cent(made.predicted), predicted_low=low, predicted_high=high,
    )  # fmt: skip
    ledger.append(path, [line])
    return [*entries, line]


def _per_cent(fraction: float) -> float:
    """0.8343912 -> 83.439."""
    return round(100 * fraction, 3)
