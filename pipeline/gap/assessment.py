"""The assessment of a CSV before it is submitted: from its probabilities, other runs' and the known scores.

Accuracies here are fractions in 0..1; the ledger's are in per cent.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.config import Competition
from pipeline.console import table
from pipeline.errors import BadData
from pipeline.gap import estimators
from pipeline.gap.diagnosis import FEATURES_APART, MITIGATIONS, Findings
from pipeline.gap.estimators import ENOUGH_IMAGES, Labels
from pipeline.gap.forecast import FAR_APART, Forecast, forecast
from pipeline.store import ledger
from pipeline.store.ledger import Entry
from pipeline.store.submissions import Evidence, LocalCsv, Sidecar, accuracy


@dataclass(frozen=True)
class Assessment:
    """A CSV and its public score, predicted or known."""

    csv: LocalCsv
    evidence: Evidence = field(repr=False, compare=False)
    temperature: float
    findings: Findings
    forecast: Forecast  # from everything known today except its own score
    predicted: Entry | None = None  # the ledger's prediction, else that forecast; None: scored without one
    sent: Entry | None = None  # its newest submission, preferably scored

    def after(self, entries: Sequence[Entry]) -> Self:
        """The same with the CSV's state in these lines of the ledger."""
        sidecar = self.csv.sidecar
        own = [e for e in ledger.current(entries, sidecar.competition) if e.csv_sha256 == sidecar.csv_sha256 and e.ref]
        sent = max(own, key=lambda e: (e.public is not None, e.ref or 0), default=None)
        made = ledger.predictions(entries, sidecar.competition).get(sidecar.csv_sha256)
        scored = sent is not None and sent.public is not None
        return replace(self, predicted=made or (None if scored else self.today), sent=sent)

    @property
    def today(self) -> Entry:
        """The forecast as a line of the ledger, without a time."""
        made = self.forecast
        predicted, low, high = (round(100 * share, 3) for share in (made.predicted, *made.interval))
        return replace(Entry.of(self.csv.sidecar), status=ledger.PREDICTED, note=made.by, predicted=predicted,
                       predicted_low=low, predicted_high=high)  # fmt: skip

    @property
    def public(self) -> float | None:
        """Its public score in per cent, once it is known."""
        return self.sent.public if self.sent else None

    @property
    def expected(self) -> float:
        """Its public score, else the prediction; 0..1."""
        known = self.predicted.predicted if self.public is None and self.predicted else self.public
        return self.forecast.predicted if known is None else known / 100

    def to_dict(self) -> dict[str, Any]:
        """For --json.  Accuracies in per cent, gains in points; a scored CSV has no new prediction."""
        made, line, scored = self.forecast, self.predicted, self.public is not None
        return {
            "predicted": line and line.predicted,
            "interval": line and [line.predicted_low, line.predicted_high],
            "by": line and line.note,
            "error": prediction_error(line, self.sent),
            "methods": {} if scored else {name: round(100 * value, 3) for name, value in made.methods.items()},
            "refused": {} if scored else made.refused,
            "reliable": None if scored else not made.doubts,
            "doubts": [] if scored else made.doubts,
            "temperature": round(self.temperature, 3),
            "verdict": self.findings.diagnosis.verdict,
            **self.findings.to_dict(),
        }

    @property
    def headline(self) -> str:
        """Its score or prediction, in one line."""
        optimistic = " (optimistic)" * (self.csv.sidecar.validation_set == "test_batch")
        parts, line, sent = [f"holdout {self.csv.sidecar.test_accuracy:.2f}%{optimistic}"], self.predicted, self.sent
        if line is not None:
            doubt = ", unreliable" if self.doubts else ""
            parts.append(f"predicted {line.predicted:.1f}% ({line.predicted_low:.0f}-{line.predicted_high:.0f}{doubt})")
        if sent is not None and sent.public is not None:
            parts.append(f"public {sent.public:.2f}%")
            parts += [] if sent.private is None else [f"private {sent.private:.2f}%"]
            parts.append(f"gap {self.csv.sidecar.test_accuracy - sent.public:.2f} points")
        elif sent is not None and sent.status == ledger.ERROR:
            parts.append("Kaggle could not score it")
        return "   ".join(parts)

    @property
    def doubts(self) -> list[str]:
        """Why the prediction may be wrong, as long as there is no score."""
        made = self.forecast.doubts if self.public is None else ()
        return [f"doubt: {doubt}" for doubt in made if doubt != self.findings.diagnosis.reason]

    @property
    def cause(self) -> str:
        """Why the score differs from the holdout accuracy, and the mitigation."""
        seen, applied = self.findings.diagnosis, self.findings.mitigation
        cause, gap = seen.reason.partition(";")[0], self.csv.sidecar.test_accuracy - 100 * self.expected
        chance = self.forecast.predicted - self.forecast.interval[0]
        if seen.verdict == "none" and abs(gap) > 100 * max(FAR_APART, chance):
            what, how = "predicted" * (self.public is None) or "public", "lower" if gap > 0 else "higher"
            cause = f"unknown: the images look like the holdout's, and the {what} score is {abs(gap):.1f} points {how}"
            least = self.predicted.predicted_low if self.predicted else None
            if self.public is not None and least is not None and self.public < least - 100 * FAR_APART:
                cause += "; are the order, ids and classes right?"
        gains = [t.after - t.before for t in self.findings.trials if t.mitigation == applied]
        brought = "".join(f" ({100 * gain:+.1f} points in simulation)" for gain in gains)
        return cause if applied == "none" else f"{cause}; {MITIGATIONS[applied]} is on{brought}"

    @property
    def details(self) -> list[str]:
        """For --verbose: all methods (today's, after a score, too), doubts, and the size of every effect."""
        made, seen, pixels = self.forecast, self.findings.diagnosis, self.findings.diagnosis.pixels
        methods = [f"{name} {100 * value:.1f}%" for name, value in made.methods.items()]
        methods += [f"no {name}: {reason}" for name, reason in made.refused.items()]
        error = prediction_error(self.predicted, self.sent)
        effects = [
            ("pixel distance", f"{pixels.distance:.2f}", f"up to {pixels.limit:.2f}"),
            ("AUC, test against holdout features", f"{seen.auc:.2f}", "0.50"),
            ("more low-confidence images", f"{100 * seen.harder:.0f}%", f"up to {100 * seen.harder_limit:.0f}%"),
            ("label shift", f"{100 * seen.label_distance:.0f}%", "0%"),
            ("near duplicates of training images", f"{100 * seen.alike[0]:.1f}%", f"{100 * seen.alike[1]:.1f}%"),
        ]
        return [
            f"predicted {f'by {made.by}' if self.public is None else 'today'}; {'; '.join(methods)}",
            *self.doubts,
            *([] if error is None else [f"prediction error {error:+.2f} points"]),
            f"diagnosis {seen.verdict}: {seen.reason}",
            *table(("effect, before adaptation", "test set", "without a shift"), effects, left=(0,)),
        ]


def assess(csv: LocalCsv, others: Sequence[LocalCsv], entries: Sequence[Entry], competition: Competition) -> Assessment:
    """Predict the public score of `csv`, with the help of the `others` and of the ledger's `entries`.

    BadData if its saved probabilities are missing, damaged or another CSV's.
    """
    evidence, sha256 = Evidence.read(csv, most=ENOUGH_IMAGES), csv.sidecar.csv_sha256
    findings = Findings.from_dict(evidence.findings)
    temperature, holdout, hidden = estimators.calibrated(evidence.holdout, evidence.validation, evidence.hidden)
    states = ledger.current(entries, competition.slug)
    scored = {e.csv_sha256: e for e in states if e.public is not None and e.csv_sha256 != sha256}
    same = [other for other in others if other.sidecar.hidden == csv.sidecar.hidden]
    applied = {other.sidecar.csv_sha256: other.sidecar.measure for other in same}
    made = forecast(
        accuracy=accuracy(evidence.holdout.labels, evidence.holdout.known_truth),
        holdout=holdout,
        hidden=hidden,
        peers=_peers(csv, evidence, same),
        anchors=[
            (e.local_test / 100, e.public / 100)
            for e in scored.values()
            if e.local_test is not None and e.public is not None
            # Another mitigation has another line.
            if applied.get(e.csv_sha256) == csv.sidecar.measure
        ],
        line=competition.line,
        simulated=findings.simulated,
        verdict=findings.diagnosis.verdict,
        mixed=len(findings.diagnosis.pixels.corruptions) > 1,
        alarms=_alarms(findings, csv.sidecar),
        scored_rows=competition.public_rows or max(csv.sidecar.rows // 2, 1),
    )
    return Assessment(csv, evidence, temperature, findings, made).after(entries)


def _peers(csv: LocalCsv, evidence: Evidence, others: Sequence[LocalCsv]) -> list[tuple[Labels, Labels]]:
    """The labels of each available run on the holdout and on the test images, each model once.

    The `others` are of the same test images.  Not of runs that repeat others' labels of them: those trained on those.
    """
    seen = [(csv, evidence)]
    for other in others:
        if other is not csv and not other.sidecar.pseudo_labels:
            with suppress(BadData):  # reported when that CSV is assessed itself
                seen.append((other, Evidence.read(other, most=ENOUGH_IMAGES)))
    found: dict[str, tuple[Labels, Labels]] = {}  # by the weights: another device gives a few other labels
    for other, its in seen:
        if np.array_equal(its.holdout.known_truth, evidence.holdout.known_truth):
            for run, local, hidden in zip(its.runs, its.holdout.members, its.hidden.members, strict=True):
                found.setdefault(other.sidecar.weights.get(run, run), (local, hidden))
    return list(found.values())


def _alarms(findings: Findings, sidecar: Sidecar) -> list[str]:
    """Why the probabilities cannot be trusted."""
    diagnosis = findings.diagnosis
    if sidecar.pseudo_labels:
        return ["a run was trained on pseudo-labels of the test set: its confidence says nothing"]
    if findings.mitigation == "prior" and diagnosis.verdict != "label_shift":
        return ["--adapt prior favours classes that the diagnosis does not find more often"]
    if diagnosis.pixels.corruptions or diagnosis.verdict == "label_shift":
        return []
    if diagnosis.verdict in ("preprocessing", "corruption"):
        return [diagnosis.reason]
    if diagnosis.auc > FEATURES_APART or diagnosis.verdict == "unknown":
        return [f"the test images are out-of-distribution for the model (AUC {diagnosis.auc:.2f})"]
    return []


def assess_and_record(
    path: Path, csv: LocalCsv, others: Sequence[LocalCsv], entries: Sequence[Entry], competition: Competition
) -> tuple[Assessment, list[Entry]]:
    """The assessment of `csv`, whose forecast is in the ledger at `path` then, and all lines of that ledger."""
    assessed = assess(csv, others, entries, competition)
    lines = record(path, entries, assessed, datetime.now(UTC))
    return assessed.after(lines), lines


def prediction_error(predicted: Entry | None, sent: Entry | None) -> float | None:
    """Predicted minus public score in points, or None where one is unknown."""
    if predicted is None or predicted.predicted is None or sent is None or sent.public is None:
        return None
    return predicted.predicted - sent.public


def record(path: Path, entries: Sequence[Entry], assessment: Assessment, now: datetime) -> list[Entry]:
    """Write the forecast into the ledger at `path`; all its lines then.

    Not if its `entries` have the same for this CSV, if it was sent with a prediction, or if it has a score.
    """
    line = assessment.today
    made = ledger.predictions(entries, line.competition).get(line.csv_sha256)
    sent = line.csv_sha256 in ledger.sent(entries, line.competition)
    scored = assessment.after(entries).public is not None
    same = made and (made.predicted, made.predicted_low, made.predicted_high) == (
        line.predicted, line.predicted_low, line.predicted_high,
    )  # fmt: skip
    if scored or same or (made and sent):
        return list(entries)
    line = replace(line, time=now.isoformat(timespec="seconds"))
    ledger.append(path, [line])
    return [*entries, line]
