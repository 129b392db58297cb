"""The files beside submissions/RUN.csv: its origin (RUN.json) and the probabilities behind it (RUN.npz)."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline import commands
from pipeline.config import Paths, check_slug
from pipeline.errors import BadData, Log, MissingInput, UsageError, printable
from pipeline.store import atomic, runs
from pipeline.store.manifest import FileRecord, from_json, read_json, reading
from pipeline.store.runs import Run

Mitigation = Literal["none", "bn", "revert", "prior"]  # against a shift, see pipeline.gap.prediction
Adapt = Literal["auto", Mitigation]
FORMER = {"norms": "bn", "undo": "revert"}  # former names of mitigations
Tta = Literal["none", "flip", "flip-shift"]  # test-time augmentation, see pipeline.training.inference

RUNS = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+-]*")  # "A", or "A+B"
TAG_RUN = 100  # characters of the run's name in a tag, because Kaggle may cut a description


@dataclass(frozen=True)
class Sidecar:
    """The origin of a CSV, as predict wrote it.  Accuracies in per cent.

    Sidecars of older versions lack the fields with defaults.
    """

    competition: str
    run: str  # of an ensemble "A+B"
    csv_sha256: str
    rows: int
    weights_sha256: str  # of an ensemble: fingerprint of its members'
    hidden: str  # fingerprint of the test set
    validation_accuracy: float | None  # None: the runs share no validation set
    validation_set: str  # "test_batch" (optimistic) or "split"
    test_accuracy: float
    created: str  # ISO 8601, UTC
    versions: Mapping[str, str]
    runs: Mapping[str, str] = field(default_factory=dict)  # name -> weights_sha256, one entry for each run
    tta: Tta = "none"
    adapt: Adapt = "none"  # requested
    measure: Mitigation = "none"  # applied
    pseudo_labels: list[str] = field(default_factory=list)  # CSVs that the runs were trained on
    mirrored: bool = True  # whether the runs were trained with mirroring
    submittable: bool = True  # False: a model is over the parameter limit
    device: str = ""  # that predicted, and its precision

    def __post_init__(self) -> None:
        """Refuse values that are unsafe in a path, a description for Kaggle or a command."""
        check_slug(self.competition)
        if not RUNS.fullmatch(self.run):
            raise UsageError(f"{printable(repr(self.run), 40)} is not the name of a run")

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """Values of older versions, with today's name of a mitigation."""
        return {key: FORMER.get(str(v), v) if key in ("adapt", "measure") else v for key, v in values.items()}

    def write(self, csv: Path) -> None:
        """Write it beside `csv`, atomically."""
        atomic.write_json(sidecar_path(csv), dataclasses.asdict(self))

    @classmethod
    def read(cls, csv: Path) -> Self | None:
        """The sidecar of `csv`, or None if it has none; BadData if it is damaged or another program's."""
        path, other = sidecar_path(csv), csv.with_stem(f"{csv.stem}-2")
        cure = f"write another CSV with `python -m pipeline.predict --out {shlex.quote(str(other))}`"
        return read_json(path, cls, cure) if path.is_file() else None

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of each run's weights, by its name."""
        return self.runs or {self.run: self.weights_sha256}


class NotOurs(BadData):
    """A CSV that predict did not write, or that was edited since; it may still be a valid submission."""


@dataclass(frozen=True)
class LocalCsv:
    """A CSV that predict wrote and that is unchanged."""

    path: Path
    size: int  # bytes
    sidecar: Sidecar


def local_csv(path: Path, competition: str | None = None) -> LocalCsv:
    """The CSV at `path`, which predict wrote (for `competition`) and which is unchanged.

    Raises:
        MissingInput: it is not there.
        NotOurs: predict did not write it, or it was edited.
        BadData: it is for another competition.
    """
    if not path.is_file():
        raise MissingInput(f"{path} is not there: {again(path)}")
    if (sidecar := _sidecar(path)) is None:
        raise NotOurs(f"{path} was not written by predict")
    record = FileRecord.of(path)
    if sidecar.csv_sha256 != record.sha256:
        raise NotOurs(f"{path} was edited after predict wrote it")
    if competition not in (None, sidecar.competition):
        raise BadData(f"{path} is for {sidecar.competition}: add --competition {sidecar.competition}")
    return LocalCsv(path, record.size, sidecar)


def local_csvs(folder: Path, competition: str | None = None) -> list[LocalCsv]:
    """The unchanged CSVs in `folder` that predict wrote (for `competition`); reads all of them."""
    ours = []
    for path in sorted(folder.glob("*.csv")):
        with contextlib.suppress(BadData, MissingInput):  # predict and submit report it; a folder, a broken link
            ours.append(local_csv(path, competition))
    return ours


def default_csv(csvs: Sequence[LocalCsv], paths: Paths, slug: str | None = None, run: str = "") -> LocalCsv:
    """The CSV that submit, check, report and status take by default, of `csvs` for `slug`: the newest one of `run`.

    By default of all runs that train finished last, as predict takes them.  They may be part of a larger ensemble, and
    their weights are the present ones.  If they are for another competition, or no run is left, the newest CSV of all.

    Raises:
        MissingInput, BadData: there is none, or the latest run is unknown; says what to do.
    """
    own, names = csvs, [run]
    if run or runs.finished(paths.models) or not csvs:
        names = [run] if run else runs.all_latest(paths.models)
        own = [csv for csv in csvs if csv.sidecar.weights.keys() >= {*names}]
        with contextlib.suppress(MissingInput, BadData):
            opened = [Run.open(paths.models, name) for name in names]
            weights = {each.name: each.weights_sha256 for each in opened}
            other = slug not in (None, opened[0].card.competition)
            own = csvs if other else [csv for csv in own if csv.sidecar.weights.items() >= weights.items()]
    if own:
        return max(own, key=lambda csv: (csv.sidecar.created, csv.path))
    if len(names) > 1:
        command = commands.command("predict", "", paths)
        raise MissingInput(f"no CSV in {paths.submissions} is the average of {', '.join(names)}: run `{command}`")
    (run,) = names
    place = paths.submissions / f"{run}.csv"
    if place in strangers(place):
        what = "was edited after predict wrote it" if _sidecar(place) else "was not written by predict"
        raise NotOurs(
            f"{place} {what}: submit it as is with --csv {shlex.quote(str(place))}, or {again(place, run, paths)}"
        )
    raise MissingInput(f"no CSV in {paths.submissions} is what run {run} predicts: {again(place, run, paths)}")


def again(csv: Path, run: str = "", paths: Paths | None = None) -> str:
    """The command that predicts into `csv`, or beside it if predict did not write what is there."""
    named = ["--run", *run.split("+")] if run else []
    return f"run `{commands.command('predict', '', paths or Paths(), *named, '--out', str(free(csv)))}`"


def free(csv: Path) -> Path:
    """The first of `csv`, CSV-2, CSV-3, ... that predict may write without replacing other files."""
    places = (csv.with_name(f"{csv.stem}{f'-{k}' if k > 1 else ''}.csv") for k in count(1))
    return next(place for place in places if not strangers(place))


def keep(csv: Path, sent: Collection[str], log: Log) -> None:
    """Copy `csv`, if it was submitted (`sent`: the sha256 of such CSVs), and the files beside it, to CSV-2, CSV-3, ...

    Its score helps to predict the next one, and status shows it.
    """
    sidecar = _sidecar(csv)
    if sidecar is None or sidecar.csv_sha256 not in sent or strangers(csv) or not csv.exists():
        return
    places = (csv.with_stem(f"{csv.stem}-{k}") for k in count(2))
    copy = next(place for place in places if not (place.exists() or strangers(place)))
    for beside in (evidence_path, sidecar_path, Path):  # the CSV last: without it the others mean nothing
        if beside(csv).exists():
            with atomic.replacing(beside(copy)) as temporary:
                shutil.copyfile(beside(csv), temporary)
    log(f"{csv} was submitted: a copy is kept as {copy}")


def strangers(csv: Path) -> list[Path]:
    """Of `csv` and the files beside it, those that predict did not write."""
    sidecar = _sidecar(csv)
    # After a kill between the sidecar and its CSV, the CSV is partial.
    digests = [FileRecord.of(path).sha256 for path in (csv, atomic.partial(csv)) if path.is_file()]
    ours = {
        csv: sidecar is not None and sidecar.csv_sha256 in digests,
        sidecar_path(csv): sidecar is not None,
        evidence_path(csv): _is_evidence(evidence_path(csv)),
    }
    return [path for path, is_ours in ours.items() if os.path.lexists(path) and not is_ours]


def _sidecar(csv: Path) -> Sidecar | None:
    """The sidecar of `csv`; None also for another program's JSON."""
    with contextlib.suppress(BadData):
        return Sidecar.read(csv)
    return None


def _is_evidence(path: Path) -> bool:
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return "csv_sha256.npy" in archive.namelist()
    return False


def sidecar_path(csv: Path) -> Path:
    """submissions/sub.csv -> submissions/sub.json."""
    return csv.with_suffix(".json")


def tag(run: str, csv_sha256: str, validation_accuracy: float | None) -> str:
    """A submission's description, by which it is found again: `run=... sha=... val=...`."""
    value = "unknown" if validation_accuracy is None else f"{validation_accuracy:.2f}"
    return f"run={run[:TAG_RUN]} sha={csv_sha256[:12]} val={value}"


def carries(description: str, csv_sha256: str) -> bool:
    """Whether a submission's description names this CSV."""
    return f"sha={csv_sha256[:12]}" in description.split()


# --- RUN.npz beside submissions/RUN.csv ---------------------------------------------------------------------


@dataclass(frozen=True)
class Outputs:
    """The outputs of R models for N images."""

    probabilities: NDArray[np.float32]  # (N, classes): averaged over models and TTA, as for the CSV
    members: NDArray[np.uint8]  # (R, N): each model's own label, without TTA
    truth: NDArray[np.uint8] | None  # (N,): the true labels, None for test images

    def __len__(self) -> int:
        """The number of images."""
        return len(self.probabilities)

    @property
    def known_truth(self) -> NDArray[np.uint8]:
        """The true labels (N,)."""
        assert self.truth is not None  # Evidence.read requires it
        return self.truth

    @property
    def labels(self) -> NDArray[np.int64]:
        """The most probable classes, (N,), ties to the lower."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def accuracy(self) -> float:
        """The share of the labels that are right, 0..1."""
        return accuracy(self.labels, self.known_truth)


def accuracy(labels: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """The share of the labels (N,) that are right."""
    return float((labels == truth).mean())


@dataclass(frozen=True)
class Evidence:
    """The predictions behind one CSV."""

    runs: tuple[str, ...]  # names of the R models
    hidden: Outputs
    holdout: Outputs
    validation: Outputs | None  # None: the runs share no validation split
    hidden_rows: NDArray[np.int64]  # (n,), ascending: the test images of hidden_features
    hidden_features: NDArray[np.float32]  # (n, F): input of the first model's linear layer
    ood_scores: NDArray[np.float32]  # (n,): how far out of distribution, see pipeline.gap.shift
    holdout_rows: NDArray[np.int64]  # (m,), ascending
    holdout_features: NDArray[np.float32]  # (m, F)
    findings: Mapping[str, Any]  # pipeline.gap.diagnosis.Findings as JSON values

    def write(self, csv: Path, csv_sha256: str) -> None:
        """Write it beside `csv`, atomically."""
        values = {"csv_sha256": np.array(csv_sha256), "runs": np.array(self.runs)}
        values["examination"] = np.array(json.dumps(self.findings))
        values |= {key: getattr(self, name) for name, key in FEATURES.items()}
        for name, outputs in (("hidden", self.hidden), ("test", self.holdout), ("validation", self.validation)):
            if outputs is not None:
                values |= {f"{name}_{key}": value for key, value in vars(outputs).items() if value is not None}
        with atomic.replacing(evidence_path(csv)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **values)  # type: ignore[arg-type]  # numpy's stubs take its option for an array

    @classmethod
    def read(cls, csv: LocalCsv, most: int | None = None) -> Self:
        """The probabilities behind `csv`; BadData if they are missing, damaged or another CSV's.

        `most`: load at most so many test images, evenly spread.
        """
        path = evidence_path(csv.path)
        if not path.is_file():
            raise BadData(f"{csv.path} has no saved probabilities: predict again with --force")
        with reading(path, "predict again with --force"):
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                values = dict(stored)
            if str(values["csv_sha256"]) != csv.sidecar.csv_sha256:
                raise ValueError("of another CSV")
            step = max(-(-len(values["hidden_probabilities"]) // most), 1) if most else 1
            values["hidden_probabilities"] = values["hidden_probabilities"][::step].copy()
            values["hidden_members"] = values["hidden_members"][:, ::step].copy()
            return cls(
                runs=tuple(str(name) for name in values["runs"]),
                hidden=_outputs(values, "hidden"),
                holdout=_outputs(values, "test"),
                validation=_outputs(values, "validation") if "validation_probabilities" in values else None,
                findings=from_json(Mapping[str, Any], json.loads(str(values["examination"]))),
                **{name: values[key] for name, key in FEATURES.items()},
            )


FEATURES = {  # field -> its array in the file
    "hidden_rows": "hidden_rows", "hidden_features": "hidden_features", "ood_scores": "foreign",
    "holdout_rows": "test_rows", "holdout_features": "test_features",
}  # fmt: skip


def _outputs(values: Mapping[str, NDArray[Any]], name: str) -> Outputs:
    """The arrays that begin with `name`; ValueError or KeyError if one is missing or does not fit."""
    truth = values.get(f"{name}_truth") if name == "hidden" else values[f"{name}_truth"]
    outputs = Outputs(values[f"{name}_probabilities"], values[f"{name}_members"], truth)
    labels = [outputs.members] if truth is None else [outputs.members, truth[None]]
    if outputs.probabilities.ndim != 2 or any(given.shape[1:] != (len(outputs),) for given in labels):
        raise ValueError(f"the arrays of {name} do not fit each other")
    classes = outputs.probabilities.shape[1]
    if any(given.dtype != np.uint8 or (given >= classes).any() for given in labels):
        raise ValueError(f"the labels of {name} are invalid")
    return outputs


def evidence_path(csv: Path) -> Path:
    """submissions/sub.csv -> submissions/sub.npz."""
    return csv.with_suffix(".npz")
