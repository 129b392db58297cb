"""How the runs behind a CSV came about: what taught them, and whose labels of the hidden images they learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.store.manifest import FileRecord
from pipeline.store.runs import Run
from pipeline.store.sidecar import Sidecar


@dataclass(frozen=True)
class Teacher:
    """A run that a network was distilled from."""

    name: str
    sha256: str  # the first digits of its weights'
    here: bool  # False: removed since, or trained again to other weights


@dataclass(frozen=True)
class Labels:
    """A CSV whose labels of the hidden images a network learned."""

    name: str
    sha256: str  # its first digits
    csv: Path | None  # None: removed or written again since
    runs: str = ""  # that predicted it; "": not known

    @property
    def place(self) -> str:
        """Where a package has it, below its run's folder."""
        return f"pseudo_labels/{self.name}"


@dataclass(frozen=True)
class Made:
    """A run, and what it was made from beside the training images."""

    run: Run
    teachers: tuple[Teacher, ...]
    labels: Labels | None

    @property
    def name(self) -> str:
        """The run's."""
        return self.run.name

    @property
    def lost(self) -> list[str]:
        """What is not here any more, without which it cannot be trained again."""
        lost = [f"its teacher {teacher.name}@{teacher.sha256}" for teacher in self.teachers if not teacher.here]
        if self.labels is not None and self.labels.csv is None:
            lost.append(f"the pseudo-labels {self.labels.name}@{self.labels.sha256}")
        return lost


def trace(runs: Sequence[Run], models: Path, submissions: Path) -> tuple[Made, ...]:
    """The `runs` and, before each, the runs that taught it, as far as they are in `models`."""
    made: dict[str, Made] = {}

    def visit(run: Run) -> None:
        if run.name in made:
            return
        teachers = []
        for identity in run.card.config.teachers:
            name, _, sha256 = identity.partition("@")
            teacher = _teacher(models, name, sha256)
            if teacher is not None:
                visit(teacher)
            teachers.append(Teacher(name, sha256, teacher is not None))
        made[run.name] = Made(run, tuple(teachers), _labels(run.card.config.pseudo_labels, submissions))

    for run in runs:
        visit(run)
    return tuple(made.values())


def _teacher(models: Path, name: str, sha256: str) -> Run | None:
    """The run of this name, if it still has those weights."""
    try:
        run = Run.open(models, name)
    except PipelineError:
        return None
    return run if run.weights_sha256.startswith(sha256) else None


def _labels(identity: str, submissions: Path) -> Labels | None:
    """What a config's `pseudo_labels` means."""
    if not identity:
        return None
    name, _, sha256 = identity.rpartition("@")
    csv = submissions / name
    # The card says but the name: one that leads elsewhere is nobody's that train wrote.
    if Path(name).name != name or not csv.is_file() or not FileRecord.of(csv).sha256.startswith(sha256):
        return Labels(name, sha256, None)
    try:
        card = Sidecar.read(csv)
    except PipelineError:
        card = None
    return Labels(name, sha256, None) if card is None else Labels(name, sha256, csv, card.run)
