"""A place in which a stage meets a Kaggle that misbehaves: run it, then look at what is left."""

import dataclasses
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.check import check
from pipeline.download import download
from pipeline.errors import PipelineError
from pipeline.kaggle_api.client import Kaggle
from pipeline.rehearsal.state import Settings, Submission
from pipeline.store import ledger, submissions
from pipeline.store.manifest import FileRecord
from pipeline.submit import Clock, submit
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.support import SLUG, paths_in, predicted_place, stage, tree, write_download

Stage = Literal["download", "submit", "check"]
CLOCK = Clock(deadline=20, poll=0.05, settle=0.2, patience=0.4, look=0.05)
BALLAST = 9_500_000  # bytes that make the download about ten of the client's chunks long
HANG = "hang=60"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its exit code, its error in one line, and all that it told."""

    code: int
    error: str
    told: str


@dataclass
class Place:
    """A folder with data, a run and its CSV, and the Kaggle that goes with it."""

    cwd: Path
    kaggle: FaultyKaggle
    offset: list[float]  # by how many seconds Kaggle's clock is ahead of ours
    client: dict[str, Any] = dataclasses.field(default_factory=dict)  # other settings than usual
    clock: Clock = CLOCK

    @property
    def csv(self) -> Path:
        return self.cwd / "submissions/tiny-run.csv"

    @property
    def book(self) -> Path:
        return self.cwd / "submissions/ledger.csv"

    @functools.cached_property
    def sha256(self) -> str:
        return FileRecord.of(self.csv).sha256

    @property
    def own(self) -> list[Submission]:
        """The submissions of our CSV that Kaggle has."""
        return [item for item in self.kaggle.state.received if item.sha256 == self.sha256]

    def run(self, name: Stage) -> Outcome:
        """The stage, in this process."""
        told: list[str] = []
        settings = {"timeout": 30.0, "upload_timeout": 30.0, "attempts": 1, "backoff": 0.01, **self.client}
        kaggle = Kaggle(self.kaggle.environment, log=told.append, **settings)
        paths = paths_in(self.cwd)
        try:
            if name == "download":
                download(SLUG, paths, kaggle, told.append, force=True)
            elif name == "submit":
                submit(self.csv, paths, kaggle, told.append, slug=SLUG, clock=self.clock)
            else:
                check(SLUG, paths, kaggle, told.append)
        except PipelineError as error:
            return Outcome(error.exit_code, str(error), "\n".join(told))
        return Outcome(0, "", "\n".join(told))

    def command(self, name: Stage, *more: object) -> Outcome:
        """The stage's real command line."""
        arguments = [*(["--force"] if name == "download" else []), *more]
        done = stage(name, *arguments, cwd=self.cwd, environ=self.kaggle.environment)
        return outcome(done.returncode, done.stdout, done.stderr)

    def submit_directly(self, content: bytes, name: str, description: str) -> int:
        """What somebody else, or an earlier run, has sent; its ref."""
        state = self.kaggle.state
        token = state.start_upload(name, len(content))
        state.store_upload(token, content)
        return state.submit(token, description)

    def submit_a_strangers(self) -> int:
        """Another CSV of this team's, sent by hand; its ref."""
        header, *rows = self.csv.read_text().splitlines()
        others = [f"{name},{(int(label) + 1) % 10}" for name, label in (row.split(",") for row in rows)]
        return self.submit_directly("\n".join([header, *others, ""]).encode(), "other.csv", "by hand")

    def submit_ours(self) -> int:
        """As an earlier run of ours has sent it; its ref."""
        known = submissions.Sidecar.read(self.csv)
        assert known is not None
        tag = submissions.tag(known.run, self.sha256, known.validation_accuracy)
        return self.submit_directly(self.csv.read_bytes(), self.csv.name, tag)


def outcome(code: int, stdout: str, stderr: str) -> Outcome:
    """Of a command: at most one line is an error, and no line of a traceback is shown."""
    assert "Traceback" not in stderr, stderr
    errors = [line.removeprefix("error: ") for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (code != 0), stderr
    return Outcome(code, "".join(errors), stdout)


@functools.cache
def template() -> "tempfile.TemporaryDirectory[str]":
    """Made once for this process: what each place is a copy of."""
    folder = tempfile.TemporaryDirectory(prefix="kaggle-place-")
    predicted_place(Path(folder.name) / "sending")
    fetching = Path(folder.name) / "fetching"
    write_download(fetching / "source")
    (fetching / "source/ballast.bin").write_bytes(np.random.default_rng(0).bytes(BALLAST))
    older = write_download(fetching / "older", seed=50)
    download(SLUG, paths_in(fetching), Kaggle({}), print, source=older)
    return folder


@contextmanager
def place(folder: Path, name: Stage, settings: Settings | None = None) -> Iterator[Place]:
    """A place for the stage: for download an older edition lies there already, for check a submission is scored."""
    kind = "fetching" if name == "download" else "sending"
    cwd = Path(shutil.copytree(Path(template().name) / kind, folder, symlinks=True, dirs_exist_ok=True))
    offset = [0.0]
    with faulty_kaggle(
        cwd / "source",
        cwd / "state",
        slug=SLUG,
        labels=None if name == "download" else cwd / "labels.csv",
        settings=settings or Settings(pending_seconds=0.0),
        clock=lambda: time.time() + offset[0],
    ) as kaggle:
        here = Place(cwd, kaggle, offset)
        if name == "check":
            here.submit_ours()
            assert here.run("check").code == 0
        yield here


def files(here: Place) -> dict[str, bytes]:
    """What the stages keep, but for the ledger."""
    kept = {f"{part}/{name}": data for part in ("data", "submissions") for name, data in tree(here.cwd / part).items()}
    return {name: data for name, data in kept.items() if name != "submissions/ledger.csv"}


def lines(here: Place) -> list[str]:
    """The ledger."""
    return here.book.read_text().splitlines() if here.book.exists() else []


def entries(here: Place) -> list[ledger.Entry]:
    """The ledger's states of our CSV's submissions."""
    return [e for e in ledger.current(ledger.read(here.book), SLUG) if e.csv_sha256 == here.sha256]


def is_complete(here: Place, name: Stage) -> bool:
    """Whether the stage's output is whole and right."""
    if name == "download":
        found = {k: data for k, data in tree(here.cwd / "data/raw" / SLUG).items() if k != "manifest.json"}
        return found == tree(here.cwd / "source") and not list((here.cwd / "data/raw").glob(".*.download"))
    known = [(entry.ref, entry.status, entry.public) for entry in entries(here)]
    return known == [(item.ref, "complete", _per_cent(item)) for item in here.own]


def has_no_strangers_score(here: Place) -> bool:
    """Whether each score that the ledger gives our CSV is one of its own."""
    own = {item.ref: _per_cent(item) for item in here.own}
    return all(entry.public in (None, own.get(entry.ref or 0)) for entry in entries(here))


def _per_cent(item: Submission) -> float | None:
    return round(100 * float(item.outcome.public), 3) if item.outcome.public else None


def at_once(attempts: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """All of them at the same time."""
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda run=run: found.append(run())) for run in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
