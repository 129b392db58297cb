"""What stands beside submissions/RUN.csv: where it comes from (RUN.json), and the predictions behind it (RUN.npz)."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Paths, check_slug
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.store import atomic, runs
from pipeline.store.manifest import FileRecord, from_json, read_json, reading
from pipeline.store.runs import Run

Mitigation = Literal["none", "bn", "revert", "prior"]  # against a shift, see pipeline.gap.adapt
Adapt = Literal["auto", Mitigation]
FORMER = {"norms": "bn", "undo": "revert"}  # what the mitigations were called at first
Tta = Literal["none", "flip", "flip-shift"]  # test-time augmentation, see pipeline.training.inference

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
    hidden: str  # fingerprint of the test images and ids
    validation_accuracy: float | None  # None: the runs share no validation set
    validation_set: str  # "test_batch" (optimistic) or "split"
    test_accuracy: float
    created: str  # ISO 8601, UTC
    versions: Mapping[str, str]
    runs: Mapping[str, str] = field(default_factory=dict)  # name -> weights_sha256, one entry for each run
    tta: Tta = "none"
    adapt: Adapt = "none"  # what was asked for
    measure: Mitigation = "none"  # what came of it
    pseudo_labels: list[str] = field(default_factory=list)  # CSVs whose labels of the test images were learned
    mirrored: bool = True  # whether the runs have learned from mirror images as well
    submittable: bool = True  # False: a network is over the competition's parameter limit
    device: str = ""  # that answered, and its precision

    def __post_init__(self) -> None:
        """Refuse what cannot become part of a path, a message to Kaggle or a command to copy."""
        check_slug(self.competition)
        if not RUNS.fullmatch(self.run):
            raise UsageError(f"{printable(repr(self.run), 40)} is no name of a run")

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """What older versions wrote, as of today."""
        return with_present_names(values)

    def write(self, csv: Path) -> None:
        """Write it beside `csv`, atomically."""
        atomic.write_json(sidecar_path(csv), dataclasses.asdict(self))

    @classmethod
    def read(cls, csv: Path) -> Self | None:
        """The sidecar of `csv`, or None if it has none; BadData if it is damaged, or somebody else's JSON."""
        path, other = sidecar_path(csv), csv.with_stem(f"{csv.stem}-2")
        cure = f"write another CSV with `python -m pipeline.predict --out {shlex.quote(str(other))}`"
        return read_json(path, cls, cure) if path.is_file() else None

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of the weights of each run that predicted, by its name."""
        return self.runs or {self.run: self.weights_sha256}


class NotOurs(BadData):
    """A CSV that predict did not write, or that somebody edited since; it may be a valid submission all the same."""


@dataclass(frozen=True)
class LocalCsv:
    """A CSV of ours that is still what its sidecar says."""

    path: Path
    size: int  # bytes
    sidecar: Sidecar


def local_csv(path: Path, competition: str | None = None) -> LocalCsv:
    """The CSV at `path`, which predict wrote (for `competition`) and nobody edited.

    Raises:
        MissingInput: it is not there.
        NotOurs: predict did not write it, or somebody edited it.
        BadData: it is for another competition.
    """
    if not path.is_file():
        raise MissingInput(f"{path} is not there: {again(path)}")
    if (sidecar := _sidecar(path)) is None:
        raise NotOurs(f"{path} was not written by predict")
    record = FileRecord.of(path)
    if sidecar.csv_sha256 != record.sha256:
        raise NotOurs(f"{path} was edited since predict wrote it")
    if competition not in (None, sidecar.competition):
        raise BadData(f"{path} is for {sidecar.competition}: add --competition {sidecar.competition}")
    return LocalCsv(path, record.size, sidecar)


def local_csvs(folder: Path, competition: str | None = None) -> list[LocalCsv]:
    """The CSVs in `folder` that predict wrote (for `competition`) and nobody changed since; reads all of them."""
    ours = []
    for path in sorted(folder.glob("*.csv")):
        with contextlib.suppress(BadData):  # predict and submit complain; here it only cannot be recognised
            ours.append(local_csv(path, competition))
    return ours


def default_csv(csvs: Sequence[LocalCsv], paths: Paths, slug: str | None = None, run: str = "") -> LocalCsv:
    """Of `csvs`, those for `slug`, the one that submit, check, report and status take: the newest one of `run`.

    By default that is the run that train finished last.  It counts alone or with others, but only with the weights that
    it has now.  Where it is of another competition than `slug`, or no run is left, the newest CSV of all is meant.

    Raises:
        MissingInput, BadData: there is none, or it is unknown which run finished last; says what to do.
    """
    own = csvs
    if run or runs.finished(paths.models) or not csvs:
        run = run or runs.latest(paths.models)
        own = [csv for csv in csvs if run in csv.sidecar.weights]
        with contextlib.suppress(MissingInput, BadData):
            opened = Run.open(paths.models, run)
            other = slug not in (None, opened.card.competition)
            own = csvs if other else [csv for csv in own if csv.sidecar.weights[run] == opened.weights_sha256]
    if own:
        return max(own, key=lambda csv: (csv.sidecar.created, csv.path))
    place = paths.submissions / f"{run}.csv"
    if place in strangers(place):
        send = f"send it with --csv {shlex.quote(str(place))}"
        raise NotOurs(f"{place} was not written by predict, or was edited since: {send}, or {again(place, run)}")
    raise MissingInput(f"no CSV in {paths.submissions} is what run {run} predicts: {again(place, run)}")


def again(csv: Path, run: str = "") -> str:
    """How to predict what should be at `csv`, and replace nothing that predict did not write; `run`, if it is known."""
    names = f" --run {run.replace('+', ' ')}" if run else ""
    return f"run `python -m pipeline.predict{names} --out {shlex.quote(str(free(csv)))}`"


def free(csv: Path) -> Path:
    """Where predict may write: `csv`, or the first of CSV-2, CSV-3, ... where nothing stands that it did not write."""
    places = (csv.with_name(f"{csv.stem}{f'-{k}' if k > 1 else ''}.csv") for k in count(1))
    return next(place for place in places if not strangers(place))


def strangers(csv: Path) -> list[Path]:
    """What predict did not write, of `csv` and the files that it would write beside it."""
    sidecar = _sidecar(csv)
    # A kill may have come between the sidecar and its CSV, which is partial then.
    digests = [FileRecord.of(path).sha256 for path in (csv, atomic.partial(csv)) if path.is_file()]
    ours = {
        csv: sidecar is not None and sidecar.csv_sha256 in digests,
        sidecar_path(csv): sidecar is not None,
        evidence_path(csv): _is_evidence(evidence_path(csv)),
    }
    return [path for path, is_ours in ours.items() if os.path.lexists(path) and not is_ours]


def _sidecar(csv: Path) -> Sidecar | None:
    """The sidecar of `csv`; None also for a JSON file that is something else."""
    with contextlib.suppress(BadData):
        return Sidecar.read(csv)
    return None


def _is_evidence(path: Path) -> bool:
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return "csv_sha256.npy" in archive.namelist()
    return False


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values that name a mitigation, as an earlier version may have called it."""
    return {key: FORMER.get(str(v), v) if key in ("adapt", "measure") else v for key, v in dict(values).items()}


def sidecar_path(csv: Path) -> Path:
    """submissions/sub.csv -> submissions/sub.json."""
    return csv.with_suffix(".json")


def tag(run: str, csv_sha256: str, validation_accuracy: float | None) -> str:
    """The description a submission carries, by which it is found again: `run=... sha=... val=...`."""
    value = "unknown" if validation_accuracy is None else f"{validation_accuracy:.2f}"
    return f"run={run[:TAG_RUN]} sha={csv_sha256[:12]} val={value}"


def carries(description: str, csv_sha256: str) -> bool:
    """Whether a submission's description names this CSV."""
    return f"sha={csv_sha256[:12]}" in description.split()


# --- RUN.npz beside submissions/RUN.csv: the predictions behind it, by which check assesses the CSV -------


@dataclass(frozen=True)
class Outputs:
    """What R networks say of N images, in the images' order."""

    probabilities: NDArray[np.float32]  # (N, classes): averaged over networks and views, as for the CSV
    members: NDArray[np.uint8]  # (R, N): the label that each network gives alone, to the image as it is
    truth: NDArray[np.uint8] | None  # (N,): the true labels, None for test images

    def __len__(self) -> int:
        """The number of images."""
        return len(self.probabilities)

    @property
    def known_truth(self) -> NDArray[np.uint8]:
        """The true labels (N,) of labelled images."""
        assert self.truth is not None  # Evidence.read has seen to that
        return self.truth

    @property
    def labels(self) -> NDArray[np.int64]:
        """The most probable classes, (N,), ties to the lower."""
        return np.asarray(self.probabilities.argmax(axis=1))


def accuracy(labels: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """The share of the labels (N,) that are the true ones."""
    return float((labels == truth).mean())


@dataclass(frozen=True)
class Evidence:
    """The predictions behind one CSV."""

    runs: tuple[str, ...]  # names of the R networks
    hidden: Outputs
    holdout: Outputs
    validation: Outputs | None  # None: the networks share no validation split
    hidden_rows: NDArray[np.int64]  # (n,), ascending: the test images whose features these are
    hidden_features: NDArray[np.float32]  # (n, F): what the first network's linear layer sees
    ood_scores: NDArray[np.float32]  # (n,): how far out of distribution each of them is, by pipeline.gap.shift
    holdout_rows: NDArray[np.int64]  # (m,), ascending
    holdout_features: NDArray[np.float32]  # (m, F)
    findings: Mapping[str, Any]  # pipeline.gap.diagnosis.Findings as JSON values

    def write(self, csv: Path, csv_sha256: str) -> None:
        """Write it beside `csv`, atomically."""
        values = {"csv_sha256": np.array(csv_sha256), "runs": np.array(self.runs)}
        values["examination"] = np.array(json.dumps(self.findings))
        values |= {key: getattr(self, name) for name, key in FEATURES.items()}
        for name, prefix in SETS.items():
            outputs = getattr(self, name)
            if outputs is not None:
                values |= {f"{prefix}_{key}": value for key, value in vars(outputs).items() if value is not None}
        with atomic.replacing(evidence_path(csv)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **values)  # type: ignore[arg-type]  # numpy's stubs take its option for an array

    @classmethod
    def read(cls, csv: LocalCsv, most: int | None = None) -> Self:
        """The evidence of `csv`; BadData if there is none, or it is damaged or another CSV's.

        `most`: so many of the predictions of test images are enough, evenly spread; the others are not kept.
        """
        path = evidence_path(csv.path)
        if not path.is_file():
            raise BadData(f"{csv.path} has no evidence beside it to assess it by: predict again with --force")
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


SETS = {"hidden": "hidden", "holdout": "test", "validation": "validation"}  # field -> how its arrays' names begin
FEATURES = {  # field -> its array in the file
    "hidden_rows": "hidden_rows", "hidden_features": "hidden_features", "ood_scores": "foreign",
    "holdout_rows": "test_rows", "holdout_features": "test_features",
}  # fmt: skip


def _outputs(values: Mapping[str, NDArray[Any]], name: str) -> Outputs:
    """What begins with `name`; ValueError or KeyError if its arrays do not fit each other, or one is not there."""
    truth = values.get(f"{name}_truth") if name == "hidden" else values[f"{name}_truth"]
    outputs = Outputs(values[f"{name}_probabilities"], values[f"{name}_members"], truth)
    labels = [outputs.members] if truth is None else [outputs.members, truth[None]]
    if outputs.probabilities.ndim != 2 or any(given.shape[1:] != (len(outputs),) for given in labels):
        raise ValueError(f"the arrays of {name} do not fit each other")
    classes = outputs.probabilities.shape[1]
    if any(given.dtype != np.uint8 or (given >= classes).any() for given in labels):
        raise ValueError(f"the labels of {name} are none")
    return outputs


def evidence_path(csv: Path) -> Path:
    """submissions/sub.csv -> submissions/sub.npz."""
    return csv.with_suffix(".npz")
