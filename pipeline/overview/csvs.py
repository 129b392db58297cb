"""The CSVs of a competition: whether they are still what their runs say, and what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BadData
from pipeline.store import atomic, ledger, runs
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.submissions import Sidecar

NOT_SUBMITTED, UNKNOWN = "not submitted", "not known"


@dataclass(frozen=True)
class CsvState:
    """A CSV.  Accuracies in per cent; None is what is not known."""

    path: str
    created: str = ""  # ISO 8601, UTC
    runs: Sequence[str] = ()
    local: float | None = None  # on test_batch
    predicted: float | None = None  # the public score, foretold
    public: float | None = None
    submission: str = NOT_SUBMITTED  # or UNKNOWN, or its state in the ledger: sending, pending, complete, error
    stale: str = ""  # why it is no longer what its runs say; "": it is
    submittable: bool = True
    problem: str = ""  # what is damaged, and what helps

    @property
    def usable(self) -> bool:
        """Whether it is what its runs say."""
        return not (self.stale or self.problem)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def read(
    folder: Path, models: Path, slug: str, hidden: str | None, lines: Sequence[Entry] | None
) -> list[CsvState]:  # fmt: skip
    """The CSVs in `folder` that predict wrote for the competition `slug`, the newest first.

    Args:
        models: the folder of the runs.
        hidden: the fingerprint of the hidden images, if it is known.
        lines: the ledger's; None if it is damaged.
    """
    states, foretold = ledger.current(lines or (), slug), ledger.predictions(lines or (), slug)
    unsent = UNKNOWN if lines is None else NOT_SUBMITTED
    found = []
    for path in folder.glob("[!.]*.csv"):
        if path.name == ledger.NAME or not path.is_file():
            continue
        try:
            card = Sidecar.read(path)
        except BadData as error:
            found.append(CsvState(str(path), problem=str(error)))
            continue
        if card is None or card.competition != slug:
            continue
        sent = [entry for entry in states if entry.csv_sha256 == card.csv_sha256]
        public = [entry.public for entry in sent if entry.public is not None]
        known = foretold.get(card.csv_sha256)
        found.append(
            CsvState(
                str(path),
                card.created,
                tuple(card.runs or [card.run]),
                card.test_accuracy,
                known.predicted if known else None,
                public[-1] if public else None,
                sent[-1].status if sent else unsent,
                _stale(path, card, models, hidden),
                card.submittable,
            )
        )
    return sorted(found, key=lambda csv: (csv.created, csv.path), reverse=True)


def _stale(path: Path, card: Sidecar, models: Path, hidden: str | None) -> str:
    """Why the CSV is no longer what its runs say, in a few words."""
    if atomic.partial(path).exists():
        return "predict was interrupted"
    if FileRecord.of(path).sha256 != card.csv_sha256:
        return "edited"
    if hidden not in (None, card.hidden):
        return "of other hidden images"
    changed = [name for name, sha256 in _weights(card).items() if _trained_anew(models / name, sha256)]
    return f"{changed[0]} was trained anew" if changed else ""


def _weights(card: Sidecar) -> Mapping[str, str]:
    return card.runs or {card.run: card.weights_sha256}


def _trained_anew(folder: Path, sha256: str) -> bool:
    """Whether the run has other weights now; a run that is gone, or under way, has none to compare."""
    try:
        manifest = Manifest.read(folder)
    except BadData:
        return False
    record = manifest.files.get(runs.WEIGHTS) if manifest else None
    return record is not None and record.sha256 != sha256
