"""What a kernel puts out becomes a run and a CSV of here, if it is what was ordered; anything else is refused.

A kernel's output is as foreign as a download: names are fixed beforehand, sizes limited, everything is verified in a
folder of its own before a byte of it lies where a stage reads.
"""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import Paths
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.kernel_runner import CSV_ENDINGS, RUN_FILES
from pipeline.kernels.order import Order
from pipeline.store import atomic, runs, submissions
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.runs import CHECKPOINT, EXECUTION, TENSORBOARD, Run
from pipeline.store.submissions import Evidence, Sidecar, written_by_predict

MB = 10**6
LARGEST = {  # bytes of a file, by its ending: five million parameters have 20 MB, a million hidden images 300 MB
    ".json": 4 * MB, ".jsonl": 64 * MB, ".safetensors": 64 * MB, ".csv": 64 * MB, ".npz": 512 * MB,
}  # fmt: skip


def wanted(order: Order) -> dict[str, int]:
    """The files that the order's kernel puts out, as the runner names them, each with the most bytes it may have."""
    csv = Path("submissions", f"{order.run}.csv")
    files = [Path("data/models", order.run, name) for name in RUN_FILES]
    files += [csv.with_suffix(ending) for ending in CSV_ENDINGS]
    return {file.as_posix(): LARGEST[file.suffix] for file in files}


def below(folder: Path) -> Paths:
    """The folders of a kernel's output."""
    return Paths(models=folder / "data/models", submissions=folder / "submissions")


def csv_of(order: Order, submissions: Path) -> Path:
    """The CSV's place."""
    return submissions / f"{order.run}.csv"


def here(order: Order, paths: Paths) -> Run | None:
    """The run of this order, if it and its CSV are here, complete.

    Raises:
        UsageError: a run or a CSV of that name is here, and is another one.
    """
    folder, csv = paths.models / order.run, csv_of(order, paths.submissions)
    run = None
    try:
        if folder.exists():
            run = _checked(Run.open(paths.models, order.run), order)
            if not csv.exists() and any((folder / name).exists() for name in (CHECKPOINT, EXECUTION, TENSORBOARD)):
                raise BadData(
                    f"run {run.name} was trained here, and `python -m pipeline.predict --run {run.name}` writes its CSV"
                )
        if csv.exists():
            known, _ = written_by_predict(csv, order.competition)
            if run is None or known.weights_sha256 != run.weights_sha256:
                raise BadData(f"{csv} is of another run")
    except (BadData, MissingInput) as error:
        raise UsageError(
            f"{error}; the kernel's results would take its place: choose another --run, or --force"
        ) from None
    return run if csv.exists() else None


def verify(order: Order, folder: Path) -> Run:
    """The run in the output that lies in `folder`.

    Raises:
        BadData: something is missing, is damaged, or is not what was ordered.
    """
    try:
        run = _checked(Run.open(below(folder).models, order.run), order)
        if changed := run.manifest.changed(run.folder):
            raise BadData(f"{changed[0]} is not as its manifest has it")
        csv = csv_of(order, below(folder).submissions)
        known, _ = written_by_predict(csv, order.competition)
        _check_size(submissions.evidence_path(csv))
        _check_csv(known, Evidence.read(csv), run)
    except (BadData, MissingInput) as error:
        # Where it lay, and what mends a run of here, helps nobody.
        why = str(error).replace(f"{folder}/", "").partition(f": {runs.ANEW}")[0].partition(": write it again")[0]
        text = f"the kernel's output is not what was ordered ({printable(why)})"
        raise BadData(f"{text}: run the same command again, or push it anew with --force") from error
    return run


def publish(order: Order, folder: Path, paths: Paths) -> None:
    """Put what `verify` found in `folder` where the stages look for it, the CSV last, and make the run the latest."""
    target, csv = paths.models / order.run, csv_of(order, paths.submissions)
    come, its_csv = below(folder).models / order.run, csv_of(order, below(folder).submissions)
    with atomic.lock(target), atomic.lock(csv):
        with atomic.replacing_folder(target) as new:
            for name in RUN_FILES:
                shutil.copyfile(come / name, new / name)
        for ending in CSV_ENDINGS:
            with atomic.replacing(csv.with_suffix(ending)) as temporary:
                shutil.copyfile(its_csv.with_suffix(ending), temporary)
    runs.point_latest(paths.models, order.run)


@contextmanager
def incoming(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder` for what comes; removed in the end."""
    place = folder / "incoming"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _checked(run: Run, order: Order) -> Run:
    """The run, if it is of this order and has no files but those of every run."""
    if (run.card.competition, run.card.config) != (order.competition, order.config):
        raise BadData(f"run {run.name} has other options than this order")
    if set(run.manifest.files) != {name for name in RUN_FILES if name != MANIFEST}:
        raise BadData(f"the manifest of run {run.name} names other files than a run has")
    return run


def _check_size(npz: Path) -> None:
    """Refuse what unpacks to more than it may have: numpy would take the memory for it."""
    try:
        with zipfile.ZipFile(npz) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise BadData(f"{npz} is damaged ({printable(error)})") from error
    if size > LARGEST[npz.suffix]:
        raise BadData(f"{npz} unpacks to {size:,} bytes")


def _check_csv(known: Sidecar, answers: Evidence | None, run: Run) -> None:
    if known.run != run.name or known.weights_sha256 != run.weights_sha256:
        raise BadData("the CSV is of another run")
    if answers is None or answers.csv_sha256 != known.csv_sha256:
        raise BadData("the evidence is of another CSV")
