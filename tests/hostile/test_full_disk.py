"""A full disk is told in one line, nothing is lost by it, and the same command finishes after space was made."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.rehearsal.state import Settings
from pipeline.store import ledger, runs
from tests.hostile.surroundings import NAMESPACE, needs_mounts, shell
from tests.support import ROOT, SLUG, clean_environment, error_line, here, serve, tree

CSV = "submissions/tiny-run.csv"
# Runs a command on a small disk, and keeps what is on it.
SCRIPT = """
mount -t tmpfs -o size={kilobytes}k tmpfs disk && cp -a kept/. disk/ || exit 99
"$@"; code=$?
cp -a disk/. between
exit $code
"""


@dataclass(frozen=True)
class Filled:
    """What was in a folder before and after a command that found its disk full, and what the command said then."""

    before: Mapping[str, bytes]
    after: Mapping[str, bytes]
    line: str


def on_a_full_disk(
    place: Path, folder: str, kilobytes: int, *command: str, environ: Mapping[str, str] | None = None
) -> Filled:
    """Run `python -m pipeline.COMMAND` in `place`, whose `folder` lies on a disk of so many kilobytes.

    Then `folder` lies where there is space.
    """
    lies = place / folder
    lies.rename(place / "kept")
    for name in ("disk", "between"):
        (place / name).mkdir()
    lies.symlink_to(place / "disk")
    script, module = SCRIPT.format(kilobytes=kilobytes), f"pipeline.{command[0]}"
    result = subprocess.run(
        [*NAMESPACE, "bash", "-c", script, "bash", sys.executable, "-m", module, *command[1:]],
        cwd=place,
        env={**(environ or clean_environment()), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lies.unlink()
    (place / "between").rename(lies)
    line = error_line(result, 1)
    assert "the disk is full" in line and "free space, then run the same command again" in line
    return Filled(tree(place / "kept"), tree(lies), line)


@needs_mounts
def test_while_arrays_are_written(place: Path) -> None:
    command = ("preprocess", "--competition", SLUG, "--force")
    filled = on_a_full_disk(place, "data/processed", 700, *command)
    assert f"data/processed/{SLUG}" in filled.line
    assert filled.after == filled.before
    assert here(*command, cwd=place).returncode == 0
    assert tree(place / "data/processed") == filled.before


@needs_mounts
def test_while_a_csv_is_written(place: Path) -> None:
    before = (place / CSV).read_bytes()
    filled = on_a_full_disk(place, "submissions", 40, "predict", "--force")
    assert "submissions/tiny-run.npz" in filled.line
    assert filled.after == filled.before
    assert here("predict", "--force", cwd=place).returncode == 0
    assert (place / CSV).read_bytes() == before


@needs_mounts
def test_while_a_run_is_trained_the_last_checkpoint_is_kept(place: Path) -> None:
    command = (
        "train",
        "--competition",
        SLUG,
        "--preset",
        "rehearsal",
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--run",
        "mine",
    )
    filled = on_a_full_disk(place, "data/models", 2000, *command)
    assert f"data/models/mine/{runs.CHECKPOINT}" in filled.line
    assert {name: filled.after[name] for name in filled.before} == filled.before
    assert f"mine/{runs.CHECKPOINT}" in filled.after and f"mine/{runs.WEIGHTS}" not in filled.after
    result = here(*command, cwd=place)
    assert "going on from the checkpoint: 1 epochs and 0 steps are done" in result.stdout
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
    with serve(place, settings=Settings(pending_seconds=0.0)) as kaggle:
        filled = on_a_full_disk(place, "submissions", used, "submit", environ=kaggle.environment)
        assert "submissions/ledger.csv" in filled.line
        assert filled.after == filled.before
        assert kaggle.count("CreateSubmission") == 0
        assert here("submit", "--poll", "0.1", cwd=place, environ=kaggle.environment).returncode == 0
        assert kaggle.count("CreateSubmission") == 1
    assert [entry.status for entry in ledger.current(ledger.read(book), SLUG)] == ["complete"]


def test_a_file_that_may_not_grow_is_named_as_well(place: Path) -> None:
    before = tree(place)
    command = f"(ulimit -f 100; exec $P.preprocess --competition {SLUG} --force)"
    line = error_line(shell(command, place), 1)
    assert f"data/processed/{SLUG}: the disk is full" in line
    assert tree(place) == before
