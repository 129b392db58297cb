"""metrics.jsonl in a run's folder: one line an epoch, also of a run that is still being trained."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import BadData, printable
from pipeline.store import atomic
from pipeline.store.fields import parse, require_types


@dataclass(frozen=True)
class EpochRow:
    """One epoch.  Accuracies in per cent, losses in nats.

    Training figures are running means over the augmented batches while the weights changed, the loss with
    label smoothing; validation figures are of the epoch's end, without smoothing.
    """

    epoch: int  # 1-based
    rate: float  # learning rate of the last step
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float  # training only
    seconds: float  # training and validation


def best_row(rows: Sequence[EpochRow]) -> EpochRow:
    """The epoch with the highest validation accuracy; of equals, the first."""
    return max(rows, key=lambda row: row.validation_accuracy)


def seconds_left(rows: Sequence[EpochRow], total: int) -> float:
    """How long training goes on to `total` epochs, as the last one or two of `rows` took; they are not empty."""
    last = rows[-2:]
    return sum(row.seconds for row in last) / len(last) * max(total - len(rows), 0)


def write(path: Path, rows: Sequence[EpochRow]) -> None:
    """Write metrics.jsonl as a whole: a kill can neither tear a line nor repeat one."""
    atomic.write_bytes(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())


def read(path: Path) -> list[EpochRow]:
    """The epochs done so far; none if the first has not ended yet.

    Raises:
        BadData: the file was edited, or is of another version.
    """
    if not path.is_file():
        return []
    try:
        rows = [EpochRow(**parse(line)) for line in path.read_bytes().splitlines()]
        for row in rows:
            require_types(row)
    except (ValueError, TypeError) as error:
        raise BadData(f"{path} is damaged or of another version ({printable(error)}): train the run again") from error
    return rows
