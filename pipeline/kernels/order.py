"""What a kernel is to do, how it is known again on Kaggle, and the note of it in data/kernels/RUN."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.config import check_slug, fingerprint
from pipeline.errors import MissingInput, UsageError
from pipeline.recipes import TrainConfig
from pipeline.store import atomic, runs
from pipeline.store.manifest import read_json
from pipeline.store.runs import few

NOTE = "note.json"
LONGEST = 50  # characters of a kernel's title
NO_ACCELERATOR = "none"
AGAIN = "push it anew with --force"


@dataclass(frozen=True)
class Order:
    """A training, and the machine for it.  Equal orders are one kernel."""

    competition: str
    run: str
    config: TrainConfig
    internet: bool = False
    accelerator: str | None = None  # as Kaggle spells it; None: a GPU of Kaggle's choice; "none": the CPU alone

    @property
    def gpu(self) -> bool:
        """Whether the kernel shall have one."""
        return self.accelerator != NO_ACCELERATOR

    @property
    def kernel(self) -> str:
        """The kernel's name in its URL, which Kaggle makes from its title.

        Raises:
            UsageError: the run's name is too short or too long for one.
        """
        name = re.sub(r"[^a-z0-9]+", "-", self.run.lower()).strip("-")
        if not 5 <= len(name) <= LONGEST:
            raise UsageError(f"--run {self.run}: a kernel's name has from 5 to {LONGEST} letters, digits and hyphens")
        return name

    @property
    def tag(self) -> str:
        """What the source of this order's kernel contains, and no other's."""
        return f"order={fingerprint(self.to_dict())}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "config": self.config.to_dict()}


def default_run(competition: str, config: TrainConfig) -> str:
    """The preset, and enough of the recipe's fingerprint to tell other options apart; the data is not known here."""
    return f"{config.preset}-kaggle-{fingerprint([competition, config.to_dict()])[:8]}"


@dataclass(frozen=True)
class Note:
    """A kernel that was pushed.  `version` is Kaggle's number; 0 means the newest."""

    order: Order
    user: str
    version: int

    def __post_init__(self) -> None:
        """Refuse what cannot be part of a path or a command."""
        check_slug(self.order.competition)
        runs.check_name(self.order.run)

    @property
    def ref(self) -> str:
        """USER/NAME."""
        return f"{self.user}/{self.order.kernel}"

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://www.kaggle.com/code/{self.ref}"

    def write(self, kernels: Path) -> None:
        """Keep it in data/kernels/RUN."""
        values = {"order": self.order.to_dict(), "user": self.user, "version": self.version}
        atomic.write_json(kernels / self.order.run / NOTE, values)

    @classmethod
    def read(cls, kernels: Path, run: str | None) -> Self:
        """The note of `run`; without a name of the kernel that was pushed last.

        Raises:
            MissingInput: no such kernel was pushed from here.
            BadData: the note is damaged.
        """
        notes = sorted(kernels.glob(f"[!.]*/{NOTE}"), key=lambda path: path.stat().st_mtime)
        known = [path.parent.name for path in notes]
        if run is None and known:
            run = known[-1]
        if run not in known:
            there = f"; there is {few(known)}" if known else ""
            what = f"no kernel of run {run} was" if run else "no kernel was"
            raise MissingInput(f"{what} pushed from here{there}: run `python -m pipeline.kernel push` first")
        path = kernels / str(run) / NOTE
        return read_json(path, cls, "run the push again, it finds its kernel")
