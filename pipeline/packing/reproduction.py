"""Whether an unpacked package made the very same CSV and weights again; nothing here needs torch."""

from pathlib import Path

from pipeline.store import atomic
from pipeline.store.manifest import FileRecord
from pipeline.store.runs import EXECUTION, Run


def begin(models: Path, name: str, again: str) -> None:
    """Let the run `again` compute as the run `name` did, if it trains on the same kind of device.

    Which precision is faster is measured at each run's start, and falls out one way or the other.
    """
    if (models / name / EXECUTION).is_file() and not (models / again).exists():
        atomic.write_bytes(models / again / EXECUTION, (models / name / EXECUTION).read_bytes())


def of_csv(csv: Path, sha256: str) -> str:
    """What to say about a CSV that was predicted again; `sha256` is the submitted one's."""
    found = FileRecord.of(csv).sha256
    if found == sha256:
        return f"{csv.name} is IDENTICAL to the submitted CSV (sha256 {sha256})"
    return (
        f"WARNING: {csv.name} DIFFERS from the submitted CSV: sha256 {found} instead of {sha256}.  Another device, "
        "precision, number of threads or version of PyTorch moves the labels of a few unsure images; other hidden "
        "images, or networks that were trained again, move more"
    )


def of_weights(models: Path, name: str, again: str) -> str:
    """What to say about the run `again`, which was trained like the run `name`."""
    shipped, anew = Run.open(models, name), Run.open(models, again)
    if shipped.weights_sha256 == anew.weights_sha256:
        return f"the weights of {again} are IDENTICAL to those of {name}"
    return (
        f"the weights of {again} differ from those of {name}, as they do on another device, precision or number of "
        f"threads: test accuracy {anew.result.test_accuracy:.2f} %, of {name} {shipped.result.test_accuracy:.2f} %"
    )
