"""All that check finds out, for programs and for people."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import competition
from pipeline.errors import Say, printable
from pipeline.gap import ledger
from pipeline.gap.comparison import Comparison
from pipeline.gap.join import LocalCsv
from pipeline.gap.judgement import Judgement, miss
from pipeline.gap.ledger import Entry
from pipeline.store import sidecar

SHOWN = 30  # submissions in the table
MOST = 4  # pieces of advice that a person is told


@dataclass(frozen=True)
class Findings:
    """What is known, and what is expected."""

    comparison: Comparison
    csv: LocalCsv | None  # the one that is judged
    judgement: Judgement | None
    not_judged: str | None  # why there is a CSV and no judgement
    foretold: Mapping[str, Entry]  # the predictions in the ledger, by the CSV's sha256
    pictures: Sequence[Path] = ()  # that were drawn

    def to_dict(self) -> dict[str, Any]:
        """For --json.  Accuracies in per cent, gaps in points."""
        values = self.comparison.to_dict()
        judged = self.judgement
        if self.comparison.newest is None and self.csv is not None:
            card = self.csv.sidecar
            values |= {"run": card.run, "local": card.test_accuracy, "validation": card.validation_accuracy}
        forecast = judged.forecast if judged else None
        return values | {
            "csv": str(self.csv.path) if self.csv else None,
            "predicted": per_cent(forecast.predicted) if forecast else None,
            "interval": [per_cent(limit) for limit in forecast.interval] if forecast else None,
            "by": forecast.by if forecast else None,
            "methods": {name: per_cent(value) for name, value in forecast.methods.items()} if forecast else {},
            "refused": dict(forecast.refused) if forecast else {},
            "reliable": forecast.reliable if forecast else False,
            "doubts": list(forecast.doubts) if forecast else [],
            "temperature": round(judged.temperature, 3) if judged else None,
            "verdict": judged.diagnosis.verdict if judged else None,
            "diagnosis": judged.diagnosis.to_dict() if judged else None,
            "trials": [asdict(trial) for trial in judged.trials] if judged else [],
            "measure": judged.measure if judged else None,
            "advice": [asdict(step) for step in judged.advice] if judged else [],
            "pictures": [str(path) for path in self.pictures],
            "not_judged": self.not_judged,
            "predictions": [
                {"ref": e.ref, "predicted": p.predicted, "public": e.public, "error": miss(p, e)}
                for e in self.comparison.submissions
                if (p := self.foretold.get(e.csv_sha256)) is not None
            ],
        }


def per_cent(fraction: float) -> float:
    """0.8343912 -> 83.439."""
    return round(100 * fraction, 3)


# --- what a person reads ----------------------------------------------------------------------------------


def show(checked: Findings, say: Say) -> None:
    """Print the table, what it means, and what to expect."""
    compared = checked.comparison
    if compared.not_asked:
        say(f"check: Kaggle was not asked, this is the ledger alone ({compared.not_asked})")
    if compared.submissions:
        say(table(compared.submissions, checked.foretold))
        say("")
        for line in [*_meaning(compared), *_record(checked)]:
            say(line)
    else:
        say(f"check: nothing has been submitted to {compared.competition} yet")
    newest = checked.csv
    if newest is None:
        say("check: there is no CSV to submit; `python -m pipeline.predict` writes one")
        return
    if checked.judgement is None:
        say(f"check: no prediction: {checked.not_judged}")
    else:
        for line in expected(checked.judgement):
            say(f"check: {line}")
    for path in checked.pictures:
        say(f"check: picture {path}")
    if newest.sidecar.csv_sha256 not in {entry.csv_sha256 for entry in compared.submissions if entry.ref}:
        say(f"check: {newest.path} has not been submitted.  To submit it:")
        say(f"  {submit_command(newest)}")


def expected(judged: Judgement) -> list[str]:
    """The prediction, in lines for people."""
    forecast = judged.forecast
    low, high = forecast.interval
    others = ", ".join(f"{name} {100 * value:.1f}" for name, value in forecast.methods.items() if name != forecast.by)
    refused = "; ".join(f"no {name}: {reason}" for name, reason in forecast.refused.items())
    lines = [
        f"{judged.csv.path}: local {judged.csv.sidecar.test_accuracy:.2f} %, expected public score "
        f"{100 * forecast.predicted:.1f} % (90 %: {100 * low:.1f} to {100 * high:.1f}) by {forecast.by}",
        f"other methods: {others}" + (f" ({refused})" if refused else ""),
    ]
    if not forecast.reliable:
        lines.append(f"UNRELIABLE: {'; '.join(forecast.doubts)}")
    seen = judged.diagnosis
    lines.append(f"diagnosis {seen.verdict}: {seen.reason}")
    lines.append(
        f"size of effects: pixels {seen.pixels.distance:.2f} (noticeable from {seen.pixels.limit:.2f}), "
        f"features AUC {seen.auc:.2f} (.50), unsure {100 * seen.harder:.0f} % ({100 * seen.harder_limit:.0f}), "
        f"classes moved {100 * seen.label_distance:.0f} %, "
        f"near duplicates of training images {100 * seen.alike[0]:.1f} % (locally {100 * seen.alike[1]:.1f})"
    )
    return [*lines, *(f"next: {step}" for step in judged.advice[:MOST])]


def _record(checked: Findings) -> list[str]:
    """How good the predictions were so far."""
    misses = [
        error
        for entry in checked.comparison.submissions
        if (error := miss(checked.foretold.get(entry.csv_sha256), entry)) is not None
    ]
    if not misses:
        return []
    mean = sum(map(abs, misses)) / len(misses)
    return [f"check: predictions that have a score by now: {len(misses)}, off by {mean:.2f} points on average"]


def submit_command(csv: LocalCsv) -> str:
    """The exact command that submits `csv`, tagged so that it is recognised afterwards."""
    known = csv.sidecar
    tag = sidecar.tag(known.run, known.csv_sha256, known.validation_accuracy)
    return f'kaggle competitions submit -c {known.competition} -f {shlex.quote(str(csv.path))} -m "{tag}"'


def table(entries: Sequence[Entry], foretold: Mapping[str, Entry]) -> str:
    """The newest SHOWN submissions, a line each."""
    older = max(len(entries) - SHOWN, 0)
    entries = entries[older:]
    rows = [
        {
            "ref": "-" if entry.ref is None else str(entry.ref),
            "time (UTC)": printable(entry.time[:16].replace("T", " ")),
            "run": printable(entry.run or "-"),
            "validation": _number(entry.local_validation),
            "local": _number(entry.local_test),
            "predicted": _number(foretold[entry.csv_sha256].predicted if entry.csv_sha256 in foretold else None),
            "public": _number(entry.public),
            "private": _number(entry.private),
            "gap": _number(entry.gap_public),
            "status": printable(entry.status) + ("*" if entry.note else ""),
        }
        for entry in entries
    ]
    notes = [f"* {entry.ref}: {printable(entry.note)}" for entry in entries if entry.note]
    import pandas as pd  # noqa: PLC0415 - half a second that --help need not take

    left_out = [f"... and {older:,} older ones, in {ledger.NAME} and with --json"] if older else []
    return "\n".join([*left_out, pd.DataFrame(rows).to_string(index=False), *notes])


def _meaning(checked: Comparison) -> list[str]:
    newest = checked.newest
    if newest is None or newest.public is None:
        if newest is not None and newest.status == ledger.COMPLETE:
            return [f"check: ref {newest.ref} is complete and no score is shown for it"]
        return ["check: no score yet; look again later"]
    if newest.local_test is None or newest.gap_public is None:
        return [f"check: ref {newest.ref} scored {newest.public:.2f} %; its CSV is not from here"]
    lines = [
        f"check: ref {newest.ref}, run {printable(newest.run)}: local {newest.local_test:.2f} %, "
        f"public {newest.public:.2f} %, a gap of {newest.gap_public:.2f} points"
    ]
    if checked.optimistic:
        lines.append("check: that local accuracy is optimistic: the best epoch was selected on the same test_batch")
    if checked.noise is not None:
        rows = f"{checked.public_rows} public rows" + (", assumed: half of them" if checked.rows_assumed else "")
        verdict = "more than sampling noise explains" if checked.noise.exceeds else "within sampling noise"
        lines.append(f"check: that is {verdict} (±{checked.noise.limit:.2f} points at 95 %; {rows})")
    line = competition(checked.competition).line
    if checked.line_expects is not None and line is not None:
        off = newest.public - checked.line_expects
        lines.append(
            f"check: this competition's published line expects {checked.line_expects:.2f} % for that local "
            f"accuracy; the score is {off:+.2f} points off it ({line.source})"
        )
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
