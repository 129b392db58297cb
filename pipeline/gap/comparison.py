"""Local accuracy against Kaggle's score, over all submissions: the numbers, and whether they are luck."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.config import Competition, competition
from pipeline.errors import Log, printable
from pipeline.gap import forecast
from pipeline.gap.assessment import Assessment, miss
from pipeline.gap.forecast import Noise
from pipeline.kaggle_api.client import Kaggle, Submission
from pipeline.store import ledger, submissions
from pipeline.store.ledger import Entry
from pipeline.store.submissions import LocalCsv, local_csvs

# --- Which of Kaggle's submissions is which of our CSVs: by ref, by our tag, by the file's name.


BY_HAND = "submitted by hand; recognised by its file name"
CLOCKS_DIFFER = timedelta(minutes=10)  # at most, this machine's and Kaggle's


def sync(book: Path, competition: str, kaggle: Kaggle, also: Sequence[Entry] = ()) -> list[Entry]:
    """Bring the ledger `book` up to Kaggle's list; the states of all submissions to `competition`.

    `also` is recognised besides what the ledger and the folder know: a CSV that predict did not write.

    Raises:
        NetworkError, AccessDenied: Kaggle did not answer.
        BadData: the ledger is damaged.
    """
    entries = ledger.read(book)
    known = [*also, *ledger.current(entries, competition)]
    lines = news(known, kaggle.submissions(competition), local_csvs(book.parent, competition), competition)
    ledger.append(book, lines)
    return ledger.current([*entries, *lines], competition)


def news(
    known: Iterable[Entry], listed: Iterable[Submission], csvs: Sequence[LocalCsv], competition: str
) -> list[Entry]:
    """The lines to append to the ledger, so that it knows all that Kaggle lists; oldest first.

    Args:
        known: the current states from the ledger.
        listed: Kaggle's list.
        csvs: what can be recognised.
    """
    by_ref = {entry.ref: entry for entry in known if entry.ref is not None}
    by_sha = {entry.csv_sha256: entry for entry in known if entry.csv_sha256}
    lines = []
    for submission in sorted(listed, key=lambda item: item.ref):
        old = by_ref.get(submission.ref)
        # What was not recognised may be by now: its CSV may have come from another machine meanwhile.
        entry = updated(old if old and old.run else _recognise(submission, by_sha, csvs, competition), submission)
        if old is None or _state(old) != _state(entry):
            lines.append(entry)
    return lines


def updated(entry: Entry, submission: Submission) -> Entry:
    """The ledger's next line for `entry`, with what Kaggle says of it now."""
    return Entry(
        time=instant(submission.date).isoformat(timespec="seconds"),
        competition=entry.competition,
        run=entry.run,
        csv_sha256=entry.csv_sha256,
        ref=submission.ref,
        local_validation=entry.local_validation,
        local_test=entry.local_test,
        public=_per_cent(submission.public),
        private=_per_cent(submission.private),
        status=submission.status.lower(),
        note=printable(submission.error) or (entry.note if entry.status != ledger.SENDING else ""),
    )


def _recognise(submission: Submission, by_sha: dict[str, Entry], csvs: Sequence[LocalCsv], competition: str) -> Entry:
    for sha256, entry in by_sha.items():
        if submissions.carries(submission.description, sha256):
            return entry
    for csv in csvs:
        if submissions.carries(submission.description, csv.sidecar.csv_sha256):
            return _entry(csv, competition, "")
    fitting = [
        csv
        for csv in csvs
        if csv.path.name == submission.file_name
        and csv.size == submission.size
        and instant(csv.sidecar.created) - instant(submission.date) <= CLOCKS_DIFFER
    ]
    if len(fitting) == 1:
        return _entry(fitting[0], competition, BY_HAND)
    return Entry("", competition, "", "", None, None, None, None, None, "", "not a CSV that is here")


def _entry(csv: LocalCsv, competition: str, note: str) -> Entry:
    card = csv.sidecar
    local = card.validation_accuracy, card.test_accuracy
    return Entry("", competition, card.run, card.csv_sha256, None, *local, None, None, "", note)


def _state(entry: Entry) -> tuple[object, ...]:
    return entry.status, entry.public, entry.private, entry.run


def _per_cent(score: str) -> float | None:
    """Kaggle's "0.83439" as 83.439; None while it is unknown."""
    try:
        return round(100 * float(score), 3)
    except ValueError:
        return None


def instant(text: str) -> datetime:
    """An ISO time; Kaggle's carries no zone and means UTC.  What is no time lies far in the past."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


TEST_ROWS = 10_000  # CIFAR-10's test_batch, where the processed data is not at hand


@dataclass(frozen=True)
class Comparison:
    """What is known.  Accuracies in per cent, gaps in points; None is unknown.

    The single values are of `newest`: the newest submission of a CSV of ours that has a score; if there is
    none, the newest with a score; if there is none, the newest.
    """

    competition: str
    submissions: list[Entry]
    newest: Entry | None
    public_rows: int | None
    rows_assumed: bool  # public_rows is half of the hidden set, for want of better knowledge
    noise: Noise | None  # in points
    line_expects: float | None  # public score, by the competition's published line
    optimistic: bool | None  # whether `local` was selected on the very set it is measured on
    not_asked: str | None  # why Kaggle was not asked

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        newest = self.newest
        return {
            "competition": self.competition,
            "run": newest.run if newest else None,
            "ref": newest.ref if newest else None,
            "status": newest.status if newest else None,
            "local": newest.local_test if newest else None,
            "validation": newest.local_validation if newest else None,
            "public": newest.public if newest else None,
            "private": newest.private if newest else None,
            "gap": newest.gap_public if newest else None,
            "public_rows": self.public_rows,
            "rows_assumed": self.rows_assumed,
            "noise": asdict(self.noise) if self.noise else None,
            "line_expects": self.line_expects,
            "optimistic": self.optimistic,
            "not_asked": self.not_asked,
            "submissions": [
                {**asdict(e), "gap_public": e.gap_public, "gap_private": e.gap_private} for e in self.submissions
            ],
        }


def compare(
    known: Competition,
    entries: list[Entry],
    csvs: Sequence[LocalCsv],
    facts: Mapping[str, Any],
    not_asked: str | None = None,
    only: str | None = None,
) -> Comparison:
    """Compare what is known.

    Args:
        known: the competition.
        entries: the current states of its submissions.
        csvs: the CSVs that are here, to tell how their local accuracy came about.
        facts: what preprocess found out of the data, or nothing.
        not_asked: why Kaggle was not asked.
        only: the sha256 of a CSV, to let the single values be of its submission.
    """
    candidates = [e for e in entries if only is None or e.csv_sha256 == only]
    newest = max(candidates, key=lambda e: (e.gap_public is not None, e.public is not None, e.ref or 0), default=None)
    selected_on = {csv.sidecar.csv_sha256: csv.sidecar.validation_set for csv in csvs}
    found = selected_on.get(newest.csv_sha256) if newest else None
    test_rows = facts["test"]["images"] if facts else TEST_ROWS
    public_rows = known.public_rows or (facts["hidden"]["images"] // 2 if facts else None)
    noise = line_expects = None
    if newest is not None and newest.local_test is not None:
        local = newest.local_test / 100
        if known.line is not None:
            line_expects = round(100 * forecast.on_line(known.line, local), 2)
        if newest.public is not None and public_rows:
            raw = forecast.noise(local, test_rows, newest.public / 100, public_rows)
            noise = Noise(round(100 * raw.sigma, 3), round(100 * raw.limit, 3), raw.exceeds)
    optimistic = None if found is None else found == "test_batch"
    return Comparison(
        known.slug, entries, newest, public_rows, known.public_rows is None, noise, line_expects, optimistic, not_asked
    )


# --- All that check finds out, for programs and for people.


SHOWN = 30  # submissions in the table
MOST = 4  # pieces of advice that a person is told


@dataclass(frozen=True)
class Findings:
    """What is known, and what is expected."""

    comparison: Comparison
    csv: LocalCsv | None  # the one that is judged
    judgement: Assessment | None
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


def show(checked: Findings, log: Log) -> None:
    """Print the table, what it means, and what to expect."""
    compared = checked.comparison
    if compared.not_asked:
        log(f"check: Kaggle was not asked, this is the ledger alone ({compared.not_asked})")
    if compared.submissions:
        log(table(compared.submissions, checked.foretold))
        log("")
        for line in [*_meaning(compared), *_record(checked)]:
            log(line)
    else:
        log(f"check: nothing has been submitted to {compared.competition} yet")
    newest = checked.csv
    if newest is None:
        log("check: there is no CSV to submit; `python -m pipeline.predict` writes one")
        return
    if checked.judgement is None:
        log(f"check: no prediction: {checked.not_judged}")
    else:
        for line in expected(checked.judgement):
            log(f"check: {line}")
    for path in checked.pictures:
        log(f"check: picture {path}")
    if newest.sidecar.csv_sha256 not in {entry.csv_sha256 for entry in compared.submissions if entry.ref}:
        log(f"check: {newest.path} has not been submitted.  To submit it:")
        log(f"  {submit_command(newest)}")


def expected(judged: Assessment) -> list[str]:
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
    tag = submissions.tag(known.run, known.csv_sha256, known.validation_accuracy)
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
