"""The runs that predict averages: finished runs that learned from the same images, or bundled weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from pipeline.config import fingerprint
from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.recipes import ValidationSet
from pipeline.store.manifest import FileRecord, Manifest, read_json
from pipeline.store.runs import PRETRAINED, Run, RunCard, RunResult, all_latest, is_pretrained


@dataclass(frozen=True)
class Exported:
    """NAME.json in data/pretrained: a run's card and result, and the origin of its weights."""

    run: RunCard
    result: RunResult
    weights: FileRecord  # of NAME.safetensors
    original: Mapping[str, str]  # name and weights_sha256 of the run that was exported
    trained_on: str  # the images, as text
    command: str  # that trained it
    commit: str  # of git
    label_agreement: float  # per cent of labels that half precision keeps
    versions: Mapping[str, str]


def open_run(models: Path, folder: Path, name: str) -> Run:
    """The run that `--run name` means: bundled weights in `folder` (data/pretrained), or a finished run.

    MissingInput if there is none, BadData if it is damaged, UsageError for `pretrained` if there are several.
    """
    if not is_pretrained(name):
        return Run.open(models, name)
    files = {f"{PRETRAINED}-{path.stem}": path for path in sorted(folder.glob("[!.]*.json"))}
    meant = [other for other in files if name in (PRETRAINED, other)]
    if not meant:
        there = f" (only {', '.join(files)})" if files else ""
        raise MissingInput(
            f"--run {name}: no bundled weights of that name in {folder}{there}; `python -m pipeline.train` makes a run"
        )
    if len(meant) > 1:
        raise UsageError(f"--run {name} is ambiguous: choose one of {', '.join(meant)}")
    file = files[meant[0]]
    weights = f"{file.stem}.safetensors"
    exported = read_json(file, Exported, "restore it with git")
    manifest = Manifest("export", {weights: exported.weights})
    origin = f"{exported.trained_on}, with `{exported.command}` at commit {exported.commit[:12]}"
    if manifest.missing(folder):
        raise BadData(f"{folder / weights} is missing or damaged: restore it with git")
    return Run(meant[0], folder, exported.run, exported.result, manifest, weights, origin)


@dataclass(frozen=True)
class Ensemble:
    """One or more runs, sorted by name, so that their order does not matter."""

    runs: tuple[Run, ...]

    @classmethod
    def open(cls, models: Path, pretrained_folder: Path, names: Sequence[str]) -> Self:
        """The finished runs `names`; by default what train finished last, a run or all seeds of one command.

        Raises:
            MissingInput, BadData: one of them is not there, or is damaged.
            UsageError: one is named twice, or two learned from different images.
        """
        opened = [open_run(models, pretrained_folder, name) for name in names or all_latest(models)]
        members = sorted(opened, key=lambda run: run.name)
        for one, other in pairwise(members):
            if one.name == other.name:
                raise UsageError(f"--run {one.name}: named twice")
            if (one.card.competition, one.card.data) != (other.card.competition, other.card.data):
                raise UsageError(
                    f"--run {one.name} {other.name}: they were trained on different images, "
                    f"of {one.card.competition} and {other.card.competition}"
                )
        return cls(tuple(members))

    @property
    def name(self) -> str:
        """RUN, or "A+B"."""
        return "+".join(run.name for run in self.runs)

    @property
    def weights_sha256(self) -> str:
        """Identity of the weights: a run's own, or the fingerprint of the members'."""
        shas = [run.weights_sha256 for run in self.runs]
        return shas[0] if len(shas) == 1 else fingerprint(shas)

    @property
    def csv_name(self) -> str:
        """The default name of the CSV; "A+B" would be too long for many runs."""
        return f"{self.name}.csv" if len(self.runs) == 1 else f"ensemble-{self.weights_sha256[:8]}.csv"

    @property
    def competition(self) -> str:
        """The slug of the competition that they were trained for."""
        return self.runs[0].card.competition

    @property
    def data(self) -> str:
        """Fingerprint of these images, the labelled test_batch included."""
        return self.runs[0].card.data

    @property
    def validation_set(self) -> ValidationSet:
        """What selected their epochs: "test_batch" if that is true of any, since it makes the average optimistic."""
        return "test_batch" if any(run.result.optimistic for run in self.runs) else "split"

    @property
    def one_protocol(self) -> bool:
        """Whether no member was trained on images that validated another."""
        return len({run.card.config.split for run in self.runs}) == 1

    @property
    def submittable(self) -> bool:
        """Whether each model is within the parameter limit."""
        return all(run.result.submittable for run in self.runs)

    @property
    def parameters(self) -> int:
        """Trainable parameters of all members together."""
        return sum(run.result.trainable_parameters for run in self.runs)
