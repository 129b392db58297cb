"""What a CSV will score, before it is submitted: its evidence, the other runs' and the known scores, put together.

Accuracies here are fractions in 0..1; the ledger's are in per cent.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.config import Competition
from pipeline.errors import BadData
from pipeline.gap import estimators
from pipeline.gap.diagnosis import FEATURES_APART, Findings
from pipeline.gap.estimators import ENOUGH_IMAGES, Labels
from pipeline.gap.forecast import Forecast, forecast
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import Evidence, LocalCsv, Sidecar, accuracy

MITIGATIONS = {"bn": "batch-norm adaptation", "revert": "reverting it", "prior": "class-prior correction"}


@dataclass(frozen=True)
class Assessment:
    """A CSV and its public score: predicted, or known by now."""

    csv: LocalCsv
    evidence: Evidence = field(repr=False, compare=False)
    temperature: float
    findings: Findings
    forecast: Forecast  # by what is known today, all scores but its own
    predicted: Entry | None = None  # the ledger's prediction, made before there was a score
    sent: Entry | None = None  # the newest submission of it, rather one with a score

    def after(self, entries: Sequence[Entry]) -> Self:
        """The same with what became of the CSV by these lines of the ledger."""
        slug, sha256 = self.csv.sidecar.competition, self.csv.sidecar.csv_sha256
        own = [e for e in ledger.current(entries, slug) if e.csv_sha256 == sha256 and e.ref is not None]
        sent = max(own, key=lambda e: (e.public is not None, e.ref or 0), default=None)
        return replace(self, predicted=ledger.predictions(entries, slug).get(sha256), sent=sent)

    @property
    def public(self) -> float | None:
        """Its public score in per cent, once it is known."""
        return self.sent.public if self.sent else None

    @property
    def expected(self) -> float:
        """Its public score, or what is predicted; 0..1."""
        return self.forecast.predicted if self.public is None else self.public / 100

    @property
    def prediction(self) -> tuple[float | None, float | None, float | None]:
        """The public score in per cent and the ends of its interval: of a scored CSV what was predicted before."""
        if self.public is None:
            low, high = map(_per_cent, self.forecast.interval)
            return _per_cent(self.forecast.predicted), low, high
        then = self.predicted
        return (then.predicted, then.predicted_low, then.predicted_high) if then else (None, None, None)

    @property
    def error(self) -> float | None:
        """Predicted minus public score in points, if both are known."""
        return prediction_error(self.predicted, self.sent) if self.sent else None

    def to_dict(self) -> dict[str, Any]:
        """For --json.  Accuracies in per cent, gains in points; a scored CSV is not predicted any more."""
        made, scored = self.forecast, self.public is not None
        predicted, *interval = self.prediction
        return {
            "predicted": predicted,
            "interval": interval if predicted is not None else None,
            "by": (self.predicted.note if self.predicted else None) if scored else made.by,
            "error": self.error,
            "methods": {} if scored else {name: _per_cent(value) for name, value in made.methods.items()},
            "refused": {} if scored else made.refused,
            "reliable": None if scored else not made.doubts,
            "doubts": [] if scored else made.doubts,
            "temperature": round(self.temperature, 3),
            "verdict": self.findings.diagnosis.verdict,
            **self.findings.to_dict(),
        }

    @property
    def headline(self) -> str:
        """What is known of its score, on a line."""
        optimistic = " (optimistic: selected on it)" * (self.csv.sidecar.validation_set == "test_batch")
        parts = [f"holdout {self.csv.sidecar.test_accuracy:.2f}%{optimistic}"]
        predicted, low, high = self.prediction
        if predicted is not None and low is not None and high is not None:
            known = self.public is not None
            doubts = [d for d in self.forecast.doubts if not known and d != self.findings.diagnosis.reason]
            why = f": {doubts[0]}" if doubts else ""
            parts.append(f"predicted {predicted:.1f}% ({low:.0f}-{high:.0f}{why})")
        if self.sent and self.sent.public is not None:
            scores = {"public": self.sent.public, "private": self.sent.private}
            parts += [f"{name} {score:.2f}%" for name, score in scores.items() if score is not None]
            parts.append(f"gap {self.sent.gap_public:.2f} points")
        if self.error is not None:
            parts.append(f"prediction error {self.error:+.2f} points")
        return "   ".join(parts)

    @property
    def cause(self) -> str:
        """Why the score is not the holdout accuracy, and the mitigation that is on."""
        seen, applied = self.findings.diagnosis, self.findings.mitigation
        cause = f"{seen.verdict.replace('_', ' ')}: {seen.reason.partition(';')[0]}"
        if applied == "none":
            return cause
        gains = [t.after - t.before for t in self.findings.trials if t.mitigation == applied]
        return f"{cause}; {MITIGATIONS[applied]} is on" + "".join(
            f" ({100 * g:+.1f} points in simulation)" for g in gains
        )

    @property
    def details(self) -> list[str]:
        """For --verbose: all methods, why they may be wrong, and the size of every effect."""
        made, seen, pixels = self.forecast, self.findings.diagnosis, self.findings.diagnosis.pixels
        methods = [f"{name} {100 * value:.1f}%" for name, value in made.methods.items()]
        methods += [f"no {name}: {reason}" for name, reason in made.refused.items()]
        return [
            *([f"predicted by {made.by}; {'; '.join(methods)}"] if self.public is None else []),
            *(f"doubt: {doubt}" for doubt in made.doubts if self.public is None),
            f"diagnosis {seen.verdict}: {seen.reason}",
            f"effects: pixels {pixels.distance:.2f} (noticeable from {pixels.limit:.2f}), features AUC {seen.auc:.2f} "
            f"(.50), low confidence {100 * seen.harder:.0f}% ({100 * seen.harder_limit:.0f}), label shift "
            f"{100 * seen.label_distance:.0f}%, near duplicates of training images {100 * seen.alike[0]:.1f}% "
            f"(holdout {100 * seen.alike[1]:.1f})",
        ]


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
    applied = {other.sidecar.csv_sha256: other.sidecar.measure for other in others}
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
            # With another mitigation another line holds.
            if applied.get(e.csv_sha256) == csv.sidecar.measure
        ],
        line=competition.line,
        simulated=findings.simulated,
        verdict=findings.diagnosis.verdict,
        mixed=len(findings.diagnosis.pixels.corruptions) > 1,
        alarms=_alarms(findings, csv.sidecar),
        errors=[error / 100 for error in errors if error is not None],
        scored_rows=competition.public_rows,
    )
    return Assessment(csv, evidence, temperature, findings, made).after(entries)


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
