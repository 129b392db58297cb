"""A place in which a stage meets a Kaggle that misbehaves, and what must hold of it before and afterwards."""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.download import download
from pipeline.errors import PipelineError
from pipeline.kaggle_api.client import Kaggle
from pipeline.rehearsal.state import Submission
from pipeline.store import ledger, submissions
from pipeline.store.manifest import FileRecord
from pipeline.submit import Sender
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.support import SLUG, paths_in, predicted_place, send, tree, write_download

Stage = Literal["download", "submit"]
# In seconds, which pass only where a stage sleeps: it asks twice for a score, and looks three times for its tag.
TIMES: Mapping[str, Any] = {"wait": 20.0, "poll": 30.0, "settle": 0.5, "patience": 90.0, "look": 30.0}
BALLAST = 4_000_000  # bytes that make the download about four of the client's chunks long


class Outcome(NamedTuple):
    """How a run ended: its exit code, its error in one line, and all that it printed."""

    code: int
    error: str
    printed: str


@dataclass
class Place:
    """A folder with data, a run and its CSV, and the Kaggle that goes with it."""

    cwd: Path
    kaggle: FaultyKaggle
    ahead: float = 0.0  # by how many seconds Kaggle's clock is ahead of ours
    client: dict[str, Any] = field(default_factory=dict)  # other settings than usual
    slept: list[float] = field(default_factory=list)  # seconds

    def __post_init__(self) -> None:
        self.csv, self.ledger_file = (self.cwd / "submissions" / name for name in ("tiny-run.csv", "ledger.csv"))
        self.sha256 = FileRecord.of(self.csv).sha256 if self.csv.exists() else ""

    @property
    def own(self) -> list[Submission]:
        """The submissions of our CSV that Kaggle has."""
        return [item for item in self.kaggle.state.received if item.sha256 == self.sha256]

    def run(self, stage: Stage) -> Outcome:
        """The stage, in this process."""
        printed: list[str] = []
        limits = {"timeout": 30.0, "upload_timeout": 30.0, "attempts": 1}
        settings = {**limits, "sleep": self.slept.append, "log": printed.append, **self.client}
        kaggle, paths = Kaggle(self.kaggle.environment, **settings), paths_in(self.cwd)
        try:
            if stage == "download":
                download(SLUG, paths, kaggle, printed.append, force=True)
            else:
                sender = Sender(paths, kaggle, printed.append, monotonic=lambda: sum(self.slept), **TIMES)
                entry = sender.submit(self.csv, SLUG)
                printed.append(f"ref {entry.ref} is {'scored' if entry.public is not None else entry.status}")
        except PipelineError as error:
            return Outcome(error.exit_code, str(error), "\n".join(printed))
        return Outcome(0, "", "\n".join(printed))

    def send_a_strangers(self) -> int:
        """Another CSV of this team's, sent by hand; its ref."""
        header, *rows = self.csv.read_text().splitlines()
        others = [f"{name},{(int(label) + 1) % 10}" for name, label in (row.split(",") for row in rows)]
        return send(self.kaggle.state, "\n".join([header, *others, ""]).encode(), "other.csv", "by hand")

    def send_ours(self) -> int:
        """As an earlier run of ours has sent it; its ref."""
        sidecar = submissions.Sidecar.read(self.csv)
        assert sidecar is not None
        tag = submissions.tag(sidecar.run, self.sha256, sidecar.validation_accuracy)
        return send(self.kaggle.state, self.csv.read_bytes(), self.csv.name, tag)

    def files(self) -> dict[str, bytes]:
        """What the stages keep, but for the ledger."""
        kept = {f"{top}/{name}": data for top in ("data", "submissions") for name, data in tree(self.cwd / top).items()}
        return {name: data for name, data in kept.items() if name != "submissions/ledger.csv"}

    def lines(self) -> list[str]:
        """The ledger's."""
        return self.ledger_file.read_text().splitlines() if self.ledger_file.exists() else []

    def scores(self) -> list[tuple[int | None, str, float | None]]:
        """Ref, status and score of our CSV's submissions, by the ledger."""
        entries = ledger.current(ledger.read(self.ledger_file), SLUG)
        return [(entry.ref, entry.status, entry.public) for entry in entries if entry.csv_sha256 == self.sha256]

    def is_complete(self, stage: Stage) -> bool:
        """Whether the stage's output is whole and right."""
        if stage == "download":
            raw = {name: data for name, data in tree(self.cwd / "data/raw" / SLUG).items() if name != "manifest.json"}
            return raw == tree(self.cwd / "source") and not list((self.cwd / "data/raw").glob(".*.download"))
        return self.scores() == [(item.ref, "complete", _per_cent(item)) for item in self.own]

    def require_no_strangers_score(self) -> None:
        """Each score that the ledger gives our CSV is one of its own."""
        own = {item.ref: _per_cent(item) for item in self.own}
        for ref, _, public in self.scores():
            assert public in (None, own.get(ref or 0)), f"a stranger's score: {self.lines()}"


def _per_cent(item: Submission) -> float | None:
    return round(100 * float(item.outcome.public), 3) if item.outcome.public else None


def make_template(folder: Path, stage: Stage) -> Path:
    """Where each row of the table begins: for download an older edition of the files is there; returns `folder`."""
    if stage == "submit":
        return predicted_place(folder)
    older = write_download(folder / "older", seed=50)
    download(SLUG, paths_in(folder), Kaggle({}), print, source=older)
    write_download(folder / "source")
    (folder / "source/ballast.bin").write_bytes(np.random.default_rng(0).bytes(BALLAST))
    (folder / "submissions").mkdir()
    return folder


@dataclass(frozen=True)
class Case:
    """A row of the table: what fails, and what is demanded of it."""

    name: str
    how: str | tuple[str, ...] | Callable[[Place], Outcome]  # faults, or a function that provokes it
    code: int  # exit code
    says: str  # is in the error's one line; when there is none, in what is printed
    left: Literal["as before", "complete", "unscored"] = "as before"  # the files
    sent: int = 0  # submissions of this CSV that Kaggle has afterwards
    client: Mapping[str, Any] = field(default_factory=dict)  # other settings of the Kaggle client
    again: int = 0  # exit code of the next run, without the fault


def run_case(case: Case, stage: Stage, template: Path, folder: Path) -> None:
    """The failure and what it leaves, then the same command without a fault: with one submission of the CSV.

    Raises:
        AssertionError: anything is not as the table says.
        pytest.skip.Exception: this machine does not let us provoke it.
    """
    shutil.copytree(template, folder, symlinks=True)
    labels = folder / "labels.csv" if stage == "submit" else None
    with faulty_kaggle(folder / "source", folder / "state", slug=SLUG, labels=labels) as kaggle:
        here = Place(folder, kaggle)
        kaggle.state.daily_limit, kaggle.state.pending_seconds = 1000, 0.0
        kaggle.state.clock = lambda: time.time() + here.ahead
        _fail(case, stage, here)
        here.kaggle.misbehave()
        here.client = {}
        again = here.run(stage)
        assert again.code == case.again, f"the next run ended with {again}"
        assert case.again or here.is_complete(stage), f"the next run left {here.lines()}"
        if stage == "submit":
            assert len(here.own) == 1, f"Kaggle has {len(here.own)} submissions of one CSV"
            here.require_no_strangers_score()


def _fail(case: Case, stage: Stage, here: Place) -> None:
    before, noted = here.files(), here.lines()
    here.client = dict(case.client)
    if callable(case.how):
        outcome = case.how(here)
    else:
        here.kaggle.misbehave(*([case.how] if isinstance(case.how, str) else case.how))
        outcome = here.run(stage)
    assert outcome.code == case.code, f"ended with {outcome}"
    assert re.fullmatch(r".+(\n  .+)?", outcome.error or "-"), f"more than two lines: {outcome.error!r}"
    assert case.says in (outcome.error if case.code else outcome.printed), f"said {outcome}"
    if case.left == "complete":
        assert here.is_complete(stage), f"is not complete: {outcome} {here.lines()}"
    elif case.left == "as before":
        assert here.files() == before, "files have changed"
    assert here.lines()[: len(noted)] == noted, "the ledger has lost lines"
    if stage == "submit":
        here.require_no_strangers_score()
        assert len(here.own) == case.sent, f"Kaggle has {len(here.own)} submissions of it"
