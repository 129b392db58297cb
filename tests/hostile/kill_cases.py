"""What is killed: each stage in a tiny place, with its uninterrupted end to compare with."""

import hashlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.kaggle import FaultyKaggle
from tests.support import ROOT, SLUG, clean_environment, serve, write_download

RUN = "tiny-run"
HIDDEN = 30
TRAINING = ("--preset", "rehearsal", "--batch-size", "20", "--device", "cpu")


@dataclass(frozen=True)
class Case:
    """One command, killed in a copy of what an earlier case left."""

    name: str
    after: str  # the case whose end is this one's beginning; "": an empty place
    arguments: tuple[str, ...]  # of the interpreter
    script: bool = False  # run_all.sh instead of a stage

    @property
    def kaggle(self) -> bool:
        """Whether it needs a stand-in beside it; run_all.sh brings its own."""
        return self.name in ("download", "submit", "check")


def _stage(name: str, module: str, after: str, *options: str) -> Case:
    return Case(name, after, ("-m", f"pipeline.{module}", *options))


_COMPETITION = ("--competition", SLUG)
_SWEEP = ("--search", "learning_rate=log:0.001:0.1", "--trials", "2", "--heartbeat", "1", "--name", "tiny")
CASES = (
    _stage("download", "download", "", *_COMPETITION),
    _stage("from", "download", "", *_COMPETITION, "--from", f"{SLUG}.zip"),
    _stage("preprocess", "preprocess", "download", *_COMPETITION),
    _stage("train", "train", "preprocess", *_COMPETITION, *TRAINING, "--epochs", "4", "--run", RUN),
    _stage("predict", "predict", "train", "--run", RUN, "--device", "cpu"),
    _stage("submit", "submit", "predict", "--poll", "0.1"),
    _stage("check", "check", "submit", *_COMPETITION),
    _stage("sweep", "sweep", "preprocess", *_COMPETITION, *(*TRAINING[:2], "--epochs", "1", *_SWEEP)),
    Case(
        "run_all", "", ("./run_all.sh", "--rehearsal", "--data", "source", "--epochs", "2", "--run", RUN), script=True
    ),
)


class Template:
    """Where each case begins and ends when nothing disturbs it, and what it costs; made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: dict[str, float] = {}
        self._beginnings = folder / "empty"
        _write_empty(self._beginnings, write_download(folder / "source", hidden=HIDDEN))

    def case(self, name: str) -> Case:
        """The case of that name."""
        return next(case for case in CASES if case.name == name)

    def begin(self, name: str, place: Path) -> Path:
        """Make `place` one in which the case can begin."""
        before = self.case(name).after
        shutil.copytree(self.end(before) if before else self._beginnings, place, symlinks=True)
        return place

    def end(self, name: str) -> Path:
        """The place in which the case ended undisturbed."""
        place = self._folder / "ends" / name
        if not place.exists():
            self.begin(name, place)
            with kaggle_for(self.case(name), place) as environ:
                start = _spent()
                done = subprocess.run(
                    command(self.case(name)), cwd=place, env=environ, capture_output=True, text=True,
                    stdin=subprocess.DEVNULL, timeout=300, check=False,
                )  # fmt: skip
                self._seconds[name] = _spent() - start
            assert done.returncode == 0, done.stderr
        return place

    def seconds(self, name: str) -> float:
        """The processor time of the undisturbed case: unlike the clock's, a busy machine hardly changes it."""
        self.end(name)
        return self._seconds[name]


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(case: Case) -> Sequence[str]:
    """The command line of a case."""
    return case.arguments if case.script else (sys.executable, *case.arguments)


@contextmanager
def kaggle_for(case: Case, place: Path) -> Iterator[dict[str, str]]:
    """The environment for a case, with the stand-in running where it needs one."""
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if case.script:
        yield {**clean_environment(), **more, "PIPELINE_PYTHON": sys.executable}
    elif case.kaggle:
        with serve(place) as kaggle:
            yield {**_environment(kaggle), **more}
    else:
        yield {**clean_environment(), **more}


def _environment(kaggle: FaultyKaggle) -> dict[str, str]:
    return {**kaggle.environment, "HOME": clean_environment()["HOME"]}


def _write_empty(place: Path, source: Path) -> None:
    """The competition's files to serve, its labels, its archive; and the script, with nothing left to install."""
    place.mkdir()
    (place / "source").symlink_to(source)  # the stand-in remembers whose files it served
    labels = [f"{100 + k},{k % 10}" for k in range(HIDDEN)]
    (place / "labels.csv").write_text("\n".join(["ID,Labels", *labels]) + "\n")
    shutil.make_archive(str(place / SLUG), "zip", source)
    for name in ("run_all.sh", "requirements.txt"):
        shutil.copy(ROOT / name, place / name)
    (place / "pipeline").symlink_to(ROOT / "pipeline")
    wanted = hashlib.sha256((place / "requirements.txt").read_bytes()).hexdigest()
    (place / ".requirements-installed").write_text(f"{sys.executable} {wanted}\n")
