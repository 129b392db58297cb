"""submissions/ledger.csv, the submission log: one line an event; no line is changed later.

No cell is quoted, so a line stays one line.  A submission's newest line holds its state.

Accuracies and scores are in per cent, gaps in points (holdout accuracy minus score).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.errors import BadData, printable
from pipeline.store import atomic
from pipeline.store.submissions import Sidecar

NAME = "ledger.csv"
MOST = 1000.0  # per cent or points; an interval may exceed 100
PREDICTED, SENDING, PENDING, COMPLETE, ERROR = "predicted", "sending", "pending", "complete", "error"
COLUMNS = (
    "time", "competition", "run", "csv_sha256", "ref", "local_validation", "local_test", "public", "private",
    "gap_public", "gap_private", "status", "note", "predicted", "predicted_low", "predicted_high",
)  # fmt: skip
HEAD = ("ref", "time (UTC)", "run", "validation", "holdout", "predicted", "public", "private", "gap", "status")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line.  None or "" means unknown; `ref` is Kaggle's number for the submission."""

    time: str = ""  # of the submission, ISO 8601, UTC
    competition: str
    run: str = ""
    csv_sha256: str = ""
    ref: int | None = None
    local_validation: float | None = None
    local_test: float | None = None
    public: float | None = None
    private: float | None = None
    status: str = ""
    note: str = ""  # reason of an error; how a submission by hand was recognised; method of a prediction
    predicted: float | None = None  # public score; only in lines of status "predicted"
    predicted_low: float | None = None  # of the 90% interval
    predicted_high: float | None = None

    @classmethod
    def of(cls, sidecar: Sidecar) -> Self:
        """The entry of a CSV before it is submitted."""
        return cls(
            competition=sidecar.competition, run=sidecar.run, csv_sha256=sidecar.csv_sha256,
            local_validation=sidecar.validation_accuracy, local_test=sidecar.test_accuracy,
        )  # fmt: skip

    @property
    def gap_public(self) -> float | None:
        """Holdout accuracy minus public score, in points."""
        return None if self.local_test is None or self.public is None else round(self.local_test - self.public, 3)

    @property
    def gap_private(self) -> float | None:
        """Holdout accuracy minus private score, in points."""
        return None if self.local_test is None or self.private is None else round(self.local_test - self.private, 3)


FIELDS = dataclasses.fields(Entry)


def append(path: Path, entries: Iterable[Entry]) -> None:
    """Append lines and wait until they are on disk; a kill leaves all of them or none."""
    text = "".join(map(line, entries))
    if not text:
        return
    with atomic.lock(path, wait=60):
        old = (path.read_bytes() if path.is_file() else b"") or ",".join(COLUMNS).encode()
        atomic.write_bytes(path, old + b"\n" * (not old.endswith(b"\n")) + text.encode())


def line(entry: Entry) -> str:
    """The entry as a line of the file."""
    return ",".join(_cell(getattr(entry, name)) for name in COLUMNS) + "\n"


def read(path: Path) -> list[Entry]:
    """All lines, oldest first, none without a ledger; BadData names an invalid line."""
    if not path.is_file():
        return []
    content = path.read_text(encoding="utf-8", errors="replace")
    header, *lines = content.splitlines() or [",".join(COLUMNS)]
    if header != ",".join(COLUMNS):
        raise BadData(f"{path}, line 1: not the ledger's header; restore it or move the file away")
    entries = []
    for number, text in enumerate(lines, start=2):
        cells = dict(zip(COLUMNS, text.split(","), strict=False))
        # Older versions appended in place: a line torn by a power cut lacks cells or numbers, or ends in zero bytes.
        # Its event is fetched from Kaggle, or predicted, again.
        if "\0" in cells.get(COLUMNS[-1], "\0"):
            continue
        if cells["status"] == PREDICTED and not all(cells[name] for name in COLUMNS[-3:]):
            continue
        try:
            if text.count(",") >= len(COLUMNS):
                raise ValueError("more cells than columns")
            entries.append(Entry(**{field.name: _value(field.type, cells[field.name]) for field in FIELDS}))
        except ValueError as error:
            raise BadData(f"{path}, line {number}: {printable(error)}; fix the line or delete it") from error
    return entries


def current(entries: Iterable[Entry], competition: str) -> list[Entry]:
    """The newest state of each submission to `competition`, in the order of first appearance.

    A line without a ref (about to be sent, or refused) gives way to a later line for the same CSV.
    """
    states: dict[object, Entry] = {}
    for entry in entries:
        if entry.competition != competition or entry.status == PREDICTED:
            continue
        if entry.ref is not None:
            states.pop(("sending", entry.csv_sha256), None)
            states[entry.ref] = entry
        else:
            states["sending", entry.csv_sha256] = entry
    return list(states.values())


def predictions(entries: Iterable[Entry], competition: str) -> dict[str, Entry]:
    """The prediction for each CSV, by its sha256: the newest from before its score was known.

    predict and check renew it until the CSV is sent (see gap.assessment.record); every stage shows and compares this.
    """
    newest: dict[str, Entry] = {}
    scored = set()
    for entry in entries:
        if entry.competition != competition or not entry.csv_sha256:
            continue
        if entry.public is not None:
            scored.add(entry.csv_sha256)
        elif entry.status == PREDICTED and entry.csv_sha256 not in scored:
            newest[entry.csv_sha256] = entry
    return newest


def sent(entries: Sequence[Entry], competition: str | None = None) -> set[str]:
    """The sha256 of the CSVs that Kaggle has, or may have; without `competition` of all."""
    slugs = {entry.competition for entry in entries} if competition is None else {competition}
    states = [state for slug in slugs for state in current(entries, slug)]
    return {entry.csv_sha256 for entry in states if entry.ref is not None or entry.status == SENDING}


def below_best(entries: Sequence[Entry], competition: str, csv_sha256: str) -> str:
    """Why not to submit a CSV: it is predicted below the best score; "" if it was sent, or may be better."""
    made = predictions(entries, competition).get(csv_sha256)
    best = max((entry.public or 0 for entry in current(entries, competition)), default=0)
    if csv_sha256 in sent(entries, competition) or made is None or (made.predicted_high or 0) >= best:
        return ""
    return f"predicted below your best score, {best:.2f}%"


def rows(entries: Iterable[Entry], predictions: Mapping[str, Entry]) -> list[Sequence[str]]:
    """A table row, under HEAD, for each submission; `predictions` are by the CSV's sha256."""
    return [
        (
            "-" if entry.ref is None else str(entry.ref),
            printable(entry.time[:16].replace("T", " ")),
            printable(entry.run or "-", 28),
            *map(_number, (entry.local_validation, entry.local_test)),
            _number(predictions[entry.csv_sha256].predicted if entry.csv_sha256 in predictions else None),
            *map(_number, (entry.public, entry.private, entry.gap_public)),
            printable(entry.status),
        )
        for entry in entries
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _value(kind: object, cell: str) -> Any:
    """The inverse of `_cell` for a field of this type; raises ValueError."""
    if kind is str:
        return cell
    if not cell:
        return None
    if kind == int | None:
        return int(cell)
    if not abs(value := float(cell)) <= MOST:
        raise ValueError(f"{cell} is not a percentage")
    return value


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return printable(text).replace(",", ";").replace('"', "'")
