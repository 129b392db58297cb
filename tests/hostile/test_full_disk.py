"""A full disk is told in one line, nothing is lost by it, and the same command finishes after space was made."""

import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pipeline.store import ledger, runs
from tests.hostile.edits import CSV
from tests.hostile.surroundings import NAMESPACE, needs_mounts, shell
from tests.support import SLUG, error_line, here, serve, tree
from tests.training.tiny import before_step

pytestmark = pytest.mark.usefixtures("quick_client")  # where the disk is not full
Files = Mapping[str, bytes]
PREPROCESS, PREDICT = ("preprocess", "--competition", SLUG, "--force"), ("predict", "--force")
CHECKPOINT_BYTES = 500_000  # fewer than a checkpoint has
TRAIN = ("train", "--preset", "rehearsal", "--competition", SLUG, "--epochs", "2", "--device", "cpu", "--run", "mine")


def fill(place: Path, folder: str, kilobytes: int, *command: str, **environ: str) -> tuple[Files, Files, str]:
    """Run `python -m pipeline.COMMAND` in `place`, whose `folder` is on a disk of so many kilobytes, which is full.

    Returns what was in the folder before and after it, and the error.  Afterwards `folder` is where there is space.
    """
    (place / folder).rename(place / "kept")
    for name in (folder, "between"):
        (place / name).mkdir()
    script = f"""mount -t tmpfs -o size={kilobytes}k tmpfs {folder} && cp -a kept/. {folder}/ || exit 99
        $P.{" ".join(command)}; code=$?
        cp -a {folder}/. between
        exit $code"""
    result = shell(f"{' '.join(NAMESPACE)} bash -c '{script}'", place, **environ)
    (place / folder).rmdir()
    (place / "between").rename(place / folder)
    line = error_line(result, 1)
    assert "the disk is full" in line and "free space, then run the same command again" in line
    return tree(place / "kept"), tree(place / folder), line


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Within the block this process writes no file of more bytes: with an error much like that of a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@needs_mounts
def test_while_arrays_are_written(place: Path) -> None:
    arrays = tree(place / "data/processed")
    before, after, line = fill(place, "data/processed", 700, *PREPROCESS)
    assert f"data/processed/{SLUG}" in line
    assert after == before
    assert here(*PREPROCESS, cwd=place).returncode == 0
    assert tree(place / "data/processed") == arrays


def test_while_a_csv_is_written(place: Path) -> None:
    before = tree(place)
    with no_file_larger_than(4000):
        line = error_line(here(*PREDICT, cwd=place), 1)
    assert "submissions/tiny-run.npz: the disk is full" in line
    assert tree(place) == before
    assert here(*PREDICT, cwd=place).returncode == 0
    assert (place / CSV).read_bytes() == before[CSV]


def test_while_a_run_is_trained_the_last_checkpoint_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, ExitStack() as stack:
        before_step(patch, 1, 0, lambda: stack.enter_context(no_file_larger_than(CHECKPOINT_BYTES)))
        line = error_line(here(*TRAIN, cwd=place), 1)
    assert f"data/models/mine/{runs.CHECKPOINT}: the disk is full" in line
    after = tree(place / "data/models/mine")
    assert runs.CHECKPOINT in after and runs.WEIGHTS not in after
    result = here(*TRAIN, cwd=place)
    assert "resuming after 1 epochs and 0 steps" in result.stderr
    assert runs.latest(place / "data/models") == "mine"


@needs_mounts
def test_when_a_submission_must_be_noted_nothing_is_sent(place: Path) -> None:
    book = place / "submissions/ledger.csv"
    line = book.read_text().splitlines()[-1].replace("atc", "{}")  # a line as predict writes them, and how long it is
    padding = -(book.stat().st_size + len(line) - 1) % 4096  # pages are taken whole
    with book.open("a") as stream:
        stream.write(line.replace(f",{SLUG},", ",other,").format("x" * (padding - len("other") + len(SLUG))) + "\n")
    assert book.stat().st_size % 4096 == 0
    used = sum(-(-file.stat().st_size // 4096) * 4 for file in book.parent.iterdir())
    with serve(place) as kaggle:
        before, after, error = fill(place, "submissions", used, "submit", **kaggle.environment)
        assert "submissions/ledger.csv" in error
        assert after == before
        assert kaggle.calls.count("CreateSubmission") == 0
        assert here("submit", "--poll", "0.1", cwd=place, environ=kaggle.environment).returncode == 0
        assert kaggle.calls.count("CreateSubmission") == 1
    assert [entry.status for entry in ledger.current(ledger.read(book), SLUG)] == ["complete"]
