"""The runs that predict averages: one, or several that learned from the same images.  Nothing here needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from pipeline.config import fingerprint
from pipeline.errors import UsageError
from pipeline.recipes import ValidationSet
from pipeline.store import pretrained
from pipeline.store.runs import Run


@dataclass(frozen=True)
class Ensemble:
    """One run or more, in the order of their names: however they are named, it is the same ensemble."""

    runs: tuple[Run, ...]

    @classmethod
    def open(cls, models: Path, pretrained_folder: Path, names: Sequence[str]) -> Self:
        """The finished runs `names`, or without names the one that train finished last.

        Raises:
            MissingInput, BadData: one of them is not there, or is damaged.
            UsageError: one is named twice, or two are of different competitions or learned from different images.
        """
        opened = [pretrained.open_run(models, pretrained_folder, name) for name in names or (None,)]
        members = sorted(opened, key=lambda run: run.name)
        for one, other in pairwise(members):
            if one.name == other.name:
                raise UsageError(f"--run {one.name}: named twice, and would count twice")
            if one.card.competition != other.card.competition:
                raise UsageError(
                    f"--run {one.name} {other.name}: they are of different competitions, "
                    f"{one.card.competition} and {other.card.competition}"
                )
            if one.card.data != other.card.data:
                raise UsageError(f"--run {one.name} {other.name}: they were trained on different images")
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
        """The CSV's name where none is asked for: "A+B" would be too long for many."""
        return f"{self.name}.csv" if len(self.runs) == 1 else f"ensemble-{self.weights_sha256[:8]}.csv"

    @property
    def competition(self) -> str:
        """The slug of the competition whose images they learned from."""
        return self.runs[0].card.competition

    @property
    def data(self) -> str:
        """Fingerprint of these images, the labelled test_batch included."""
        return self.runs[0].card.data

    @property
    def from_here(self) -> bool:
        """Whether this machine's train made all of them."""
        return all(run.origin is None for run in self.runs)

    @property
    def validation_set(self) -> ValidationSet:
        """What selected their epochs; one that was selected on test_batch makes the whole optimistic."""
        return "test_batch" if any(run.result.optimistic for run in self.runs) else "split"

    @property
    def one_protocol(self) -> bool:
        """Whether no member has learned from the images that validated another."""
        configs = [run.card.config for run in self.runs]
        if all(config.validation == "test_batch" for config in configs):
            return True
        return len({(config.validation, config.validation_fraction) for config in configs}) == 1

    @property
    def submittable(self) -> bool:
        """Whether the competition allows each of the networks."""
        return all(run.result.submittable for run in self.runs)

    @property
    def parameters(self) -> int:
        """Trainable, of all members together."""
        return sum(run.result.trainable_parameters for run in self.runs)
