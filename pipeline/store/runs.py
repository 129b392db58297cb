"""The folder data/models/RUN, which train writes and every later stage reads.

    config.json           the TrainConfig, the competition and the fingerprint of the data
    weights.safetensors   the selected epoch's weights
    metrics.jsonl         one line an epoch
    result.json           the selected epoch and its accuracies
    tensorboard/          the same as events
    checkpoint.pt         where an interrupted run resumes
    execution.json        its precision, and whether it is compiled
    report/               its report, index.html
    manifest.json         written last; a run with it is complete

data/models/LATEST names the run that train finished last, or all seeds of one command; never a sweep trial.
Nothing here needs torch.
"""

import difflib
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline import commands
from pipeline.config import PARAMETER_LIMIT, Paths, check_slug, fingerprint
from pipeline.errors import BadData, Log, MissingInput, PipelineError, UsageError, printable
from pipeline.recipes import TrainConfig, ValidationSet
from pipeline.store import atomic, manifest
from pipeline.store.manifest import FileRecord, Manifest, from_json, read_json, reading, records, versions

CONFIG, WEIGHTS, METRICS, RESULT = "config.json", "weights.safetensors", "metrics.jsonl", "result.json"
CHECKPOINT, TENSORBOARD, LATEST = "checkpoint.pt", "tensorboard", "LATEST"
EXECUTION, REPORT = "execution.json", Path("report/index.html")
OURS = (CONFIG, WEIGHTS, METRICS, RESULT, CHECKPOINT, EXECUTION, f"{TENSORBOARD}/*", REPORT.as_posix(), "report/*.png")
RESERVED = ("latest", "ledger")  # data/models/LATEST; submissions/ledger.csv would be RUN.csv
PRETRAINED = "pretrained"  # `--run pretrained` and `--run pretrained-NAME` mean data/pretrained
LONGEST, MOST = 200, 1e9  # longest text and largest number in a result
MOST_NAMES = 8  # of runs, in a message
RETRAIN = "train the run again with --force, or name another --run"


@dataclass(frozen=True)
class RunCard:
    """config.json: everything that determines the weights."""

    competition: str
    data: str  # fingerprint of the processed training and holdout arrays
    config: TrainConfig
    trial: str = ""  # the sweep whose trial it is; a trial is never the latest run

    def __post_init__(self) -> None:
        """Refuse a competition that is unsafe in a path or a command."""
        check_slug(self.competition)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        known = {"competition": self.competition, "data": self.data, "config": self.config.to_dict()}
        return known | ({"trial": self.trial} if self.trial else {})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The card in `folder`; BadData if it is damaged or of another version."""
        return read_json(folder / CONFIG, cls, "name another --run" if strangers(folder) else RETRAIN)


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
    last_validation_accuracy: float  # of the last epoch: unselected, so unbiased
    trainable_parameters: int
    images_per_second: float  # training, median epoch: the first one includes compilation
    seconds: float  # training and validation, all sessions
    device: str
    precision: str  # "fp32" or "bf16"
    bf16_agreement: float | None = None  # per cent of the validation images labelled as in fp32; None: not measured
    system: str | None = None  # system, processor, cores and memory; None: not recorded

    @property
    def submittable(self) -> bool:
        """Whether it is within the parameter limit."""
        return self.trainable_parameters <= PARAMETER_LIMIT

    @property
    def optimistic(self) -> bool:
        """Whether the epoch was selected on the holdout, which biases its accuracy upwards."""
        return self.validation_set == "test_batch"

    def __post_init__(self) -> None:
        """Refuse values that no stage could show."""
        for name, value in vars(self).items():
            text = isinstance(value, str)
            if not (value.isprintable() and len(value) <= LONGEST if text else 0 <= (value or 0) <= MOST):
                raise BadData(f"{name} cannot be {printable(repr(value), 40)}")


@dataclass(frozen=True)
class Run:
    """A finished run, or bundled weights."""

    name: str
    folder: Path
    card: RunCard
    result: RunResult
    manifest: Manifest
    weights_file: str = WEIGHTS
    origin: str | None = None  # of bundled weights: what they were trained on, and how

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
        manifest = Manifest.read(folder, RETRAIN)
        if manifest is None:
            cure = "run `python -m pipeline.train` with the same options to resume"
            raise MissingInput(f"run {name} is unfinished: {cure}")
        if unknown := [file for file in (CONFIG, WEIGHTS, RESULT) if file not in manifest.files]:
            raise BadData(f"the manifest of run {name} does not list {unknown[0]}: {RETRAIN}")
        if missing := manifest.missing(folder):
            raise BadData(f"{folder / missing[0]} is missing or damaged: {RETRAIN}")
        return cls(name, folder, RunCard.read(folder), read_json(folder / RESULT, RunResult, RETRAIN), manifest)

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.folder / self.weights_file

    @property
    def weights_sha256(self) -> str:
        """The recorded sha256 of that file."""
        return self.manifest.files[self.weights_file].sha256

    def check_weights(self) -> None:
        """Hash the weights file; BadData if it changed."""
        if FileRecord.of(self.weights).sha256 != self.weights_sha256:
            raise BadData(f"{self.weights} is damaged: {RETRAIN if self.origin is None else 'restore it with git'}")


def check_name(name: str, option: str = "--run") -> str:
    """A valid name for a run, hence for a folder; UsageError, about `option`, if it is not, or is reserved."""
    if is_pretrained(name):
        raise UsageError(f"{option} {name}: the name of bundled weights, which only predict takes; choose another")
    if name.lower() in RESERVED:
        raise UsageError(f"{option} {name}: this name is reserved; choose another")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise UsageError(f"{option} {name!r}: a name of letters, digits, '.', '-' and '_', not a path")
    return name


def is_pretrained(name: str) -> bool:
    """Whether the name means bundled weights; no run may have it."""
    return name.lower().split("-")[0] == PRETRAINED


def latest(models: Path) -> str:
    """The name of the run that train finished last; raises as `all_latest`."""
    return all_latest(models)[-1]


def all_latest(models: Path) -> list[str]:
    """The runs that train finished last, one or all seeds of one command; MissingInput or BadData if unknown."""
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
    trials = all(is_trial(models / name) for name in known)
    why = f"only a sweep's trials have finished in {models}" if trials else f"{pointer} names no finished run"
    raise MissingInput(f"{why}: train, or name one with --run (for submit, --csv); there is {_few(known)}")


def point_latest(models: Path, *names: str) -> None:
    """Make the last of `names` the default run of later stages, and all of them what predict averages."""
    with atomic.lock(models / LATEST, wait=60):
        atomic.write_bytes(models / LATEST, "".join(f"{name}\n" for name in names).encode())


def no_such_run(models: Path, name: str, known: Sequence[str]) -> MissingInput:
    """The error for a run that is not among the `known` ones in `models`."""
    if not known:
        where = [] if models == Paths.models else ["--models", str(models)]
        train = shlex.join(["python", "-m", "pipeline.train", *where])
        return MissingInput(f"there is no finished run in {models}: run `{train}` first")
    begun = [other for other in known if other.lower().startswith(name.lower())]
    meant = begun or difflib.get_close_matches(name, known)
    why = f": did you mean {_few(meant)}?" if meant else f" (was it renamed?): there is {_few(known)}"
    return MissingInput(f"there is no run {name} in {models}{why}")


def _few(names: Sequence[str]) -> str:
    """ "A, B and 5 more"."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(printable, names[:MOST_NAMES])) + more


def is_trial(folder: Path) -> bool:
    """Whether the run is a sweep trial; False if its card is unreadable."""
    with suppress(BadData, MissingInput):
        return bool(RunCard.read(folder).trial)
    return False


def cards(models: Path) -> dict[str, RunCard]:
    """The cards of all runs, unfinished ones and trials included, by name, as far as they can be read."""
    found = {}
    for path in models.glob(f"[!.]*/{CONFIG}"):
        with suppress(PipelineError):
            found[path.parent.name] = RunCard.read(path.parent)
    return found


def finished(models: Path) -> list[str]:
    """The names of the finished runs, trials included."""
    return sorted(path.parent.name for path in models.glob(f"[!.]*/{RESULT}"))


# --- a run that is being trained --------------------------------------------------------------------------


def default_name(card: RunCard) -> str:
    """The preset and a hash of the options and data."""
    return f"{card.config.preset}-{fingerprint(card.to_dict())[:8]}"


def options(card: RunCard, name: str) -> list[str]:
    """The options with which train resumes or repeats the run `name`; BadData if this version lacks its recipe."""
    return [*commands.in_full(card.config), *([] if name == default_name(card) else ["--run", name])]


@contextmanager
def claimed(folder: Path, card: RunCard, force: bool, log: Log) -> Iterator[None]:
    """Lock and prepare a run's folder for training.

    UsageError if another process holds it, or it has a run with other options (and not `force`).
    """
    with atomic.lock(folder):
        if force:
            _discard(folder, log)
        require_same(folder, card)
        atomic.write_json(folder / CONFIG, card.to_dict())
        yield


def require_same(folder: Path, card: RunCard) -> None:
    """Refuse to resume a run that has other options: a UsageError that names them."""
    if not (folder / CONFIG).is_file():
        if others := strangers(folder):
            raise UsageError(f"{folder} holds {others[0]}, not a run's file: choose another name with --run")
        return
    old, new = ({"trial": None, **_flat(each.to_dict())} for each in (RunCard.read(folder), card))
    if changes := [f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]:
        raise UsageError(
            f"run {folder.name} exists with other options ({'; '.join(changes)}): choose another name with "
            "--run, or replace it with --force"
        )


def strangers(folder: Path) -> list[str]:
    """The files in a run's folder, or a file in its place, that no stage wrote."""
    return [folder.name] if folder.is_file() else manifest.strangers(folder, *OURS)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"config": {"epochs": 3}} -> {"config.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _discard(folder: Path, log: Log) -> None:
    """Remove a run (renamed first, in case of a kill), or keep it as RUN.bak if it holds other files."""
    if strangers(folder):
        atomic.set_aside(folder, log)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
        shutil.rmtree(old)


def complete(folder: Path, card: RunCard) -> None:
    """Write the manifest: the run is complete."""
    Manifest(
        stage="train",
        files=records(folder, [folder / name for name in (CONFIG, WEIGHTS, METRICS, RESULT)]),
        inputs={"data": card.data},
        versions=versions("torch", "numpy", "safetensors", "scikit-learn"),
    ).write(folder)


# --- metrics.jsonl: one line an epoch -----------------------------------------------------------------------


@dataclass(frozen=True)
class EpochRow:
    """One epoch.  Accuracies in per cent, losses in nats.

    Training figures are running means over the augmented batches, the loss with label smoothing; validation figures
    are from the end of the epoch, without smoothing.
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
    """The first epoch with the highest validation accuracy."""
    return max(rows, key=lambda row: row.validation_accuracy)


def seconds_left(rows: Sequence[EpochRow], total: int) -> float:
    """Seconds until `total` epochs, at the pace of the last one or two of `rows` (not empty)."""
    last = rows[-2:]
    return sum(row.seconds for row in last) / len(last) * max(total - len(rows), 0)


def write_metrics(path: Path, rows: Sequence[EpochRow]) -> None:
    """Write metrics.jsonl as a whole, so that a kill can neither tear nor repeat a line."""
    atomic.write_bytes(path, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())


def read_metrics(path: Path) -> list[EpochRow]:
    """The finished epochs; BadData if the file was edited."""
    if not path.is_file():
        return []
    with reading(path, "train the run again"):
        return [from_json(EpochRow, json.loads(line)) for line in path.read_bytes().splitlines()]
