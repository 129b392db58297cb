"""RUN.json beside submissions/RUN.csv: where a CSV comes from, so that a score can be traced to its runs."""

import dataclasses
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pipeline.config import check_slug
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.store import atomic
from pipeline.store.fields import parse, require_types
from pipeline.store.manifest import FileRecord

Measure = Literal["none", "norms", "undo", "prior"]  # against a shift, see pipeline.gap.closing
Adapt = Literal["auto", Measure]
Tta = Literal["none", "flip", "flip-shift"]  # test-time augmentation, see pipeline.training.views

RUNS = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+-]*")  # "A", or "A+B"
TAG_RUN = 100  # characters of the run's name in a tag: an ensemble's is long, and Kaggle may cut a description


@dataclass(frozen=True)
class Sidecar:
    """What predict knew when it wrote the CSV.  Accuracies in per cent.

    The fields with defaults are absent from the sidecars of older versions, which averaged nothing.
    """

    competition: str
    run: str  # of an ensemble "A+B"
    csv_sha256: str
    rows: int
    weights_sha256: str  # of an ensemble the fingerprint of its members'
    hidden: str  # fingerprint of the hidden images and ids
    validation_accuracy: float | None  # None: the runs share no validation set
    validation_set: str  # "test_batch" (optimistic) or "split"
    test_accuracy: float
    created: str  # ISO 8601, UTC
    versions: Mapping[str, str]
    runs: Mapping[str, str] = field(default_factory=dict)  # name -> weights_sha256, one entry for each run
    tta: Tta = "none"
    adapt: Adapt = "none"  # what was asked for
    measure: Measure = "none"  # what came of it
    pseudo_labels: list[str] = field(default_factory=list)  # CSVs whose labels of the hidden images were learned
    mirrored: bool = True  # whether the runs have learned from mirror images as well
    submittable: bool = True  # False: a network is over the competition's parameter budget
    device: str = ""  # that answered, and its precision

    def write(self, csv: Path) -> None:
        """Write it beside `csv`, atomically."""
        atomic.write_json(path_of(csv), dataclasses.asdict(self))

    @classmethod
    def read(cls, csv: Path) -> Self | None:
        """The sidecar of `csv`, or None if it has none.

        Raises:
            BadData: the sidecar is damaged.
        """
        path = path_of(csv)
        if not path.is_file():
            return None
        try:
            card = cls(**parse(path.read_bytes()))
            card._require_sense()
        except (ValueError, TypeError, UsageError) as error:
            raise BadData(f"{path} is damaged or of another version ({printable(error)}): {again(csv)}") from error
        return card

    def _require_sense(self) -> None:
        """Check what becomes part of a path, a message to Kaggle or a command to copy.

        Raises:
            TypeError, ValueError, UsageError: a field holds what it cannot hold.
        """
        require_types(self)
        check_slug(self.competition)
        if not RUNS.fullmatch(self.run):
            raise ValueError("run is no name of a run")


def written_by_predict(csv: Path, competition: str) -> tuple[Sidecar, FileRecord]:
    """The sidecar of a CSV that predict wrote for `competition` and nobody edited, and the CSV's size and sha256.

    Raises:
        MissingInput: it is not there.
        BadData: it is another CSV.
    """
    if not csv.is_file():
        raise MissingInput(f"{csv} is not there: `python -m pipeline.predict --out {shlex.quote(str(csv))}` writes it")
    known, record = Sidecar.read(csv), FileRecord.of(csv)
    if known is None:
        raise BadData(f"{csv} was not written by predict, nothing is known of it: {again(csv)}")
    if known.competition != competition:
        raise BadData(f"{csv} is for {known.competition}: add --competition {known.competition}")
    if known.csv_sha256 != record.sha256:
        raise BadData(f"{csv} was edited since predict wrote it: {again(csv, known.run)}")
    return known, record


def again(csv: Path, run: str = "") -> str:
    """What to do about a CSV that is not as predict wrote it; `run` names its runs, where that is known."""
    names = f" --run {run.replace('+', ' ')}" if run else ""
    return f"write it again with `python -m pipeline.predict{names} --out {shlex.quote(str(csv))} --force`"


def path_of(csv: Path) -> Path:
    """submissions/sub.csv -> submissions/sub.json."""
    return csv.with_suffix(".json")


def is_ours(csv: Path) -> bool:
    """Whether the place of the sidecar of `csv` is free, or holds a sidecar."""
    try:
        return Sidecar.read(csv) is not None or not path_of(csv).exists()
    except BadData:
        return False


def tag(run: str, csv_sha256: str, validation_accuracy: float | None) -> str:
    """The description a submission carries, by which it is found again: `run=... sha=... val=...`."""
    value = "unknown" if validation_accuracy is None else f"{validation_accuracy:.2f}"
    return f"run={run[:TAG_RUN]} sha={csv_sha256[:12]} val={value}"


def carries(description: str, csv_sha256: str) -> bool:
    """Whether a submission's description names this CSV."""
    return f"sha={csv_sha256[:12]}" in description.split()
