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

data/models/LATEST names the run that train finished last.  Nothing here needs torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.config import PARAMETER_BUDGET, check_slug
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.recipes import TrainConfig, ValidationSet
from pipeline.store import atomic
from pipeline.store.fields import parse, require_types
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.names import absent, few

CONFIG, WEIGHTS, METRICS, RESULT = "config.json", "weights.safetensors", "metrics.jsonl", "result.json"
CHECKPOINT, TENSORBOARD, LATEST = "checkpoint.pt", "tensorboard", "LATEST"
EXECUTION, REPORT = "execution.json", Path("report/index.html")
RESERVED = ("latest", "ledger")  # data/models/LATEST; submissions/ledger.csv would be RUN.csv
PRETRAINED = "pretrained"  # `--run pretrained` and `--run pretrained-NAME` mean data/pretrained
LONGEST, MOST = 200, 1e9  # characters and numbers in a result: seconds are the largest
ANEW = "train the run again with --force, or name another --run"


@dataclass(frozen=True)
class RunCard:
    """config.json: what decides the weights, and what they are for."""

    competition: str
    data: str  # fingerprint of the processed training and test arrays
    config: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"competition": self.competition, "data": self.data, "config": self.config.to_dict()}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The card in `folder`.

        Raises:
            BadData: it is damaged or of another version.
        """
        path = folder / CONFIG
        values = _read_json(path)
        try:
            return cls.from_dict(values)
        except KeyError as error:
            raise BadData(f"{path} lacks {error}: {ANEW}") from error
        except BadData as error:
            raise BadData(f"{path}: {printable(error)}: {ANEW}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            KeyError: a key is missing.
            BadData: the config is of another version, or holds what it cannot hold.
        """
        card = cls(values["competition"], values["data"], TrainConfig.from_dict(values["config"]))
        try:
            require_types(card)
            check_slug(card.competition)
        except (TypeError, UsageError) as error:
            raise BadData(f"this is no config of a run ({printable(error, 120)})") from error
        return card


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
        return self.trainable_parameters <= PARAMETER_BUDGET

    @property
    def optimistic(self) -> bool:
        """Whether the reported accuracy was selected on the very set it is reported for."""
        return self.validation_set == "test_batch"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def require_sense(self) -> None:
        """Check what the stages show.

        Raises:
            TypeError: a field holds what it cannot hold; names it.
        """
        require_types(self)
        for name, value in vars(self).items():
            if isinstance(value, str):
                possible = value.isprintable() and len(value) <= LONGEST
            else:
                possible = value is None or 0 <= value <= MOST
            if not possible:
                raise TypeError(f"{name} cannot be {printable(repr(value), 40)}")


@dataclass(frozen=True)
class Run:
    """A finished run, or a network that came with the project (see pipeline.store.pretrained)."""

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
        asked, name = name, name if name is not None else latest(models)
        folder = models / check_name(name)
        if not folder.is_dir():
            pointer = models / LATEST if asked is None else None
            raise MissingInput(absent(models, name, _finished(models), pointer))
        manifest = _manifest(folder)
        try:
            result = RunResult(**_read_json(folder / RESULT))
            result.require_sense()
        except TypeError as error:
            raise BadData(f"{folder / RESULT} is of another version ({printable(error)}): {ANEW}") from error
        return cls(name, folder, RunCard.read(folder), result, manifest)

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.folder / self.weights_file

    @property
    def weights_sha256(self) -> str:
        """sha256 of that file, as recorded when it was written."""
        return self.manifest.files[self.weights_file].sha256

    def check_weights(self) -> None:
        """Read the weights file whole.

        Raises:
            BadData: it is not what was written.
        """
        if FileRecord.of(self.weights).sha256 != self.weights_sha256:
            cure = "train the run again with --force" if self.origin is None else "restore it with git"
            raise BadData(f"{self.weights} is damaged: {cure}")


def check_name(name: str) -> str:
    """A run's name, which is a folder's name.

    Raises:
        UsageError: it is not one plain name of letters, digits, dot, hyphen and underscore.
    """
    if name.lower() in RESERVED:
        raise UsageError(f"--run {name}: that name is taken by a file of the pipeline's own")
    if is_pretrained(name):
        raise UsageError(f"--run {name}: such names are taken by the networks of data/pretrained, for predict alone")
    if not name or name.startswith(".") or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name):
        raise UsageError(f"--run {name!r}: a name of letters, digits, '.', '-' and '_', not a path")
    return name


def is_pretrained(name: str) -> bool:
    """Whether the name means a network of data/pretrained, for which no run of that name may exist."""
    return name.lower().split("-")[0] == PRETRAINED


def latest(models: Path) -> str:
    """The name of the run that train finished last.

    Raises:
        MissingInput: no run has finished yet.
        BadData: the pointer is damaged.
    """
    pointer = models / LATEST
    if not pointer.is_file():
        if not (known := _finished(models)):
            raise MissingInput(f"no finished run in {models}: run `python -m pipeline.train` first")
        raise MissingInput(
            f"{pointer} is not there, so it is not known which run finished last: name one with --run "
            f"(for submit, its CSV with --csv); there is {few(known)}"
        )
    try:
        return check_name(pointer.read_text(encoding="ascii").strip())
    except (UnicodeDecodeError, UsageError):
        raise BadData(f"{pointer} names no run: name one with --run, or train again") from None


def point_latest(models: Path, name: str) -> None:
    """Make `name` the run that later stages take by default; processes that finish at once take turns."""
    with atomic.lock(models / LATEST, wait=60):
        atomic.write_bytes(models / LATEST, f"{name}\n".encode())


def _manifest(folder: Path) -> Manifest:
    """The manifest of a finished run, all of whose files are there."""
    try:
        manifest = Manifest.read(folder)
    except BadData as error:
        raise BadData(f"the manifest of run {folder.name} cannot be used ({error}): {ANEW}") from error
    if manifest is None:
        raise MissingInput(
            f"run {folder.name} is unfinished: run `python -m pipeline.train` with the same options to go on"
        )
    if absent := [name for name in (CONFIG, WEIGHTS, RESULT) if name not in manifest.files]:
        raise BadData(f"the manifest of run {folder.name} does not know {absent[0]}: {ANEW}")
    if missing := manifest.missing(folder):
        raise BadData(f"{folder / missing[0]} is missing or damaged: {ANEW}")
    return manifest


def _finished(models: Path) -> list[str]:
    return sorted(path.parent.name for path in models.glob(f"[!.]*/{RESULT}"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = parse(path.read_bytes())
    except FileNotFoundError:
        raise MissingInput(f"{path} is missing: {ANEW}") from None
    except ValueError as error:
        raise BadData(f"{path} is no JSON ({error}): {ANEW}") from error
    if not isinstance(values, dict):
        raise BadData(f"{path} is not a JSON object: {ANEW}")
    return values
