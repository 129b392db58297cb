"""The folder data/models/RUN: what train writes and every later stage reads.

    config.json           the TrainConfig, the competition and the fingerprint of the data
    weights.safetensors   the selected epoch's weights
    metrics.jsonl         one line an epoch
    result.json           the selected epoch and its accuracies
    tensorboard/          the same as events
    checkpoint.pt         where an interrupted run goes on
    execution.json        its precision, and whether it is compiled
    report/               what report draws of it, in index.html
    manifest.json         written last: with it the run is complete

data/models/LATEST names the run that train finished last, or all seeds of one command; never a sweep's trial.
Nothing here needs torch.
"""

import difflib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.config import PARAMETER_LIMIT, check_slug, fingerprint
from pipeline.errors import BadData, Log, MissingInput, UsageError, printable
from pipeline.recipes import TrainConfig, ValidationSet
from pipeline.store import atomic, manifest
from pipeline.store.manifest import FileRecord, Manifest, from_json, read_json, reading, records, versions

CONFIG, WEIGHTS, METRICS, RESULT = "config.json", "weights.safetensors", "metrics.jsonl", "result.json"
CHECKPOINT, TENSORBOARD, LATEST = "checkpoint.pt", "tensorboard", "LATEST"
EXECUTION, REPORT = "execution.json", Path("report/index.html")
OURS = (CONFIG, WEIGHTS, METRICS, RESULT, CHECKPOINT, EXECUTION, f"{TENSORBOARD}/*", REPORT.as_posix(), "report/*.png")
RESERVED = ("latest", "ledger")  # data/models/LATEST; submissions/ledger.csv would be RUN.csv
PRETRAINED = "pretrained"  # `--run pretrained` and `--run pretrained-NAME` mean data/pretrained
LONGEST, MOST = 200, 1e9  # characters and numbers in a result
MOST_NAMES = 8  # of runs, in a message
ANEW = "train the run again with --force, or name another --run"


@dataclass(frozen=True)
class RunCard:
    """config.json: what decides the weights, and what they are for."""

    competition: str
    data: str  # fingerprint of the processed training and test arrays
    config: TrainConfig
    trial: str = ""  # the sweep that it is a trial of; then it is never the latest run

    def __post_init__(self) -> None:
        """Refuse a competition that cannot be part of a path or a command."""
        check_slug(self.competition)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        known = {"competition": self.competition, "data": self.data, "config": self.config.to_dict()}
        return known | ({"trial": self.trial} if self.trial else {})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The card in `folder`; BadData if it is damaged or of another version."""
        return read_json(folder / CONFIG, cls, "name another --run" if strangers(folder) else ANEW)


@dataclass(frozen=True)
class RunResult:
    """result.json.  Accuracies in per cent; losses are label-smoothing-free cross entropies in nats."""

    validation_set: ValidationSet
    validation_accuracy: float  # of the selected epoch, on the set that selected it
    validation_loss: float
    validation_rows: int
    test_accuracy: float  # on the labelled test_batch
    test_rows: int
    best_epoch: int  # 1-based
    epochs: int
    last_validation_accuracy: float  # of the last epoch: not selected, so not flattered
    trainable_parameters: int
    images_per_second: float  # training, in the median epoch: compilation falls into the first
    seconds: float  # training and validation, over all its sessions
    device: str
    precision: str  # "fp32" or "bf16"
    bf16_agreement: float | None = None  # per cent of the validation images labelled as in fp32; None: not measured
    system: str | None = None  # what trained it: system, processor, cores and memory; None: not noted

    @property
    def submittable(self) -> bool:
        """Whether the competition allows so many trainable parameters."""
        return self.trainable_parameters <= PARAMETER_LIMIT

    @property
    def optimistic(self) -> bool:
        """Whether the epoch was selected on test_batch, which makes its accuracy there optimistic."""
        return self.validation_set == "test_batch"

    def __post_init__(self) -> None:
        """Refuse what no stage could show."""
        for name, value in vars(self).items():
            text = isinstance(value, str)
            if not (value.isprintable() and len(value) <= LONGEST if text else 0 <= (value or 0) <= MOST):
                raise BadData(f"{name} cannot be {printable(repr(value), 40)}")


@dataclass(frozen=True)
class Run:
    """A finished run, or a network that came with the project."""

    name: str
    folder: Path
    card: RunCard
    result: RunResult
    manifest: Manifest
    weights_file: str = WEIGHTS
    origin: str | None = None  # for people, on what and how it was trained; None: here, by train

    @classmethod
    def open(cls, models: Path, name: str | None) -> Self:
        """The finished run `name`, or without a name the one that train finished last.

        Raises:
            MissingInput: there is no such run, or it is unfinished.
            BadData: its files are damaged.
        """
        name = latest(models) if name is None else check_name(name)
        folder = models / name
        if not folder.is_dir():
            raise no_such_run(models, name, finished(models))
        manifest = Manifest.read(folder, ANEW)
        if manifest is None:
            cure = "run `python -m pipeline.train` with the same options to go on"
            raise MissingInput(f"run {name} is unfinished: {cure}")
        if unknown := [file for file in (CONFIG, WEIGHTS, RESULT) if file not in manifest.files]:
            raise BadData(f"the manifest of run {name} does not know {unknown[0]}: {ANEW}")
        if missing := manifest.missing(folder):
            raise BadData(f"{folder / missing[0]} is missing or damaged: {ANEW}")
        return cls(name, folder, RunCard.read(folder), read_json(folder / RESULT, RunResult, ANEW), manifest)

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.folder / self.weights_file

    @property
    def weights_sha256(self) -> str:
        """sha256 of that file, as recorded when it was written."""
        return self.manifest.files[self.weights_file].sha256

    def check_weights(self) -> None:
        """Read the weights file whole; BadData if it is not what was written."""
        if FileRecord.of(self.weights).sha256 != self.weights_sha256:
            raise BadData(f"{self.weights} is damaged: {ANEW if self.origin is None else 'restore it with git'}")


def check_name(name: str) -> str:
    """A run's name, which is a folder's name; UsageError if it is not a plain one, or taken."""
    if name.lower() in RESERVED or is_pretrained(name):
        raise UsageError(f"--run {name}: that name is taken by a file of the pipeline's own, or a pretrained network")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise UsageError(f"--run {name!r}: a name of letters, digits, '.', '-' and '_', not a path")
    return name


def is_pretrained(name: str) -> bool:
    """Whether the name means a network of data/pretrained, for which no run of that name may exist."""
    return name.lower().split("-")[0] == PRETRAINED


def latest(models: Path) -> str:
    """The name of the run that train finished last; raises as `all_latest`."""
    return all_latest(models)[-1]


def all_latest(models: Path) -> list[str]:
    """The names of the runs that train finished last with one command: one, or one for each of its seeds.

    Raises:
        MissingInput: no run has finished yet.
        BadData: the pointer is damaged.
    """
    pointer = models / LATEST
    if pointer.is_file():
        try:
            names = [check_name(name) for name in pointer.read_text(encoding="ascii").splitlines() or [""]]
        except (UnicodeDecodeError, UsageError):
            raise BadData(f"{pointer} names no run: name one with --run, or train again") from None
        if not any(is_trial(models / name) for name in names):
            return names
    if not (known := finished(models)):
        raise no_such_run(models, LATEST, known)
    cure = f"name one with --run (for submit, --csv); there is {_few(known)}"
    if all(is_trial(models / name) for name in known):
        full = "run the `python -m pipeline.train ...` that the sweep has named"
        raise MissingInput(f"only a sweep's trials have finished in {models}: {full}, or {cure}")
    raise MissingInput(f"{pointer} names no run that train has finished: {cure}")


def point_latest(models: Path, *names: str) -> None:
    """Make the last of `names` the run that later stages take by default, and all of them what predict averages.

    Processes that finish at once take turns.
    """
    with atomic.lock(models / LATEST, wait=60):
        atomic.write_bytes(models / LATEST, "".join(f"{name}\n" for name in names).encode())


def no_such_run(models: Path, name: str, known: Sequence[str]) -> MissingInput:
    """The error for a run that is not in `models`, where the `known` ones are."""
    if not known:
        return MissingInput(f"there is no finished run in {models}: run `python -m pipeline.train` first")
    meant = [other for other in known if other.lower().startswith(name.lower())]
    if meant := meant or difflib.get_close_matches(name, known):
        return MissingInput(f"there is no run {name} in {models}: did you mean {_few(meant)}?")
    there = f"there is {_few(known)} (`python -m pipeline.train` makes one)"
    return MissingInput(f"there is no run {name} in {models} (was it renamed?): {there}")


def _few(names: Sequence[str]) -> str:
    """ "A, B and 5 more"."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(printable, names[:MOST_NAMES])) + more


def is_trial(folder: Path) -> bool:
    """Whether the run is a sweep's trial; one whose card cannot be read is not known to be one."""
    with suppress(BadData, MissingInput):
        return bool(RunCard.read(folder).trial)
    return False


def finished(models: Path) -> list[str]:
    """The names of the runs that have finished, trials too."""
    return sorted(path.parent.name for path in models.glob(f"[!.]*/{RESULT}"))


# --- a run that is being trained --------------------------------------------------------------------------


def default_name(card: RunCard) -> str:
    """The preset, and enough of the card's fingerprint to tell other options or data apart."""
    return f"{card.config.preset}-{fingerprint(card.to_dict())[:8]}"


@contextmanager
def claimed(folder: Path, card: RunCard, force: bool, first: bool, log: Log) -> Iterator[None]:
    """Hold a run's folder, prepared for training; of several processes the first does, and the others need not.

    Raises:
        UsageError: another process is at work on it, or it holds a run with other options (and not `force`).
    """
    if not first:
        yield
        return
    with atomic.lock(folder):
        if force:
            _discard(folder, log)
        require_same(folder, card)
        atomic.write_json(folder / CONFIG, card.to_dict())
        yield


def require_same(folder: Path, card: RunCard) -> None:
    """Refuse to go on with a run that has other options: a UsageError that names those that differ."""
    if not (folder / CONFIG).is_file():
        if others := strangers(folder):
            raise UsageError(f"{folder} holds {others[0]}, which is not a run's: choose another name with --run")
        return
    old, new = ({"trial": None, **_flat(each.to_dict())} for each in (RunCard.read(folder), card))
    if changes := [f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]:
        raise UsageError(
            f"run {folder.name} exists with other options ({'; '.join(changes)}): choose another name with "
            "--run, or train it anew with `python -m pipeline.train --force` and these options"
        )


def strangers(folder: Path) -> list[str]:
    """The files in a run's folder, or the one in its place, that no stage put there."""
    return [folder.name] if folder.is_file() else manifest.strangers(folder, *OURS)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"config": {"epochs": 3}} -> {"config.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _discard(folder: Path, log: Log) -> None:
    """Remove a run.  It is renamed first: a kill must not leave a part of it to go on with.

    Where it holds what is not a run's, it is kept as RUN.bak.
    """
    if strangers(folder):
        atomic.set_aside(folder, log)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
        shutil.rmtree(old)


def complete(folder: Path, card: RunCard) -> None:
    """Write the manifest, which makes the run complete."""
    names = (CONFIG, WEIGHTS, METRICS, RESULT)
    Manifest(
        stage="train",
        files=records(folder, [folder / name for name in names]),
        inputs={"data": card.data},
        versions=versions("torch", "numpy", "safetensors", "scikit-learn"),
    ).write(folder)


# --- metrics.jsonl: one line an epoch, also of a run that is still being trained --------------------------


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


def write_metrics(path: Path, rows: Sequence[EpochRow]) -> None:
    """Write metrics.jsonl as a whole: a kill can neither tear a line nor repeat one."""
    atomic.write_bytes(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())


def read_metrics(path: Path) -> list[EpochRow]:
    """The epochs done so far, none if the first has not ended yet; BadData if the file was edited."""
    if not path.is_file():
        return []
    with reading(path, "train the run again"):
        return [from_json(EpochRow, json.loads(line)) for line in path.read_bytes().splitlines()]
