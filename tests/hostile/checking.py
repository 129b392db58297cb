"""Every crafted file against the real command line, and what must hold of each run."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import archives, meanings, pickles
from tests.hostile.bombs import made
from tests.hostile.forking import Outcome, Stages, stages
from tests.hostile.packing import competition, zip_of
from tests.hostile.pickles import Maker

SLUG = "tiny"
HIDDEN = "cifar_test_nolabel.pkl"
_BATCHES = "cifar-10-python/cifar-10-batches-py"
_BATCH, _META = f"{_BATCHES}/data_batch_3", f"{_BATCHES}/batches.meta"
_CODE = "open('canary', 'w').close()\nx = 1\n"  # of canary_module, which attacks import

CPU_SECONDS = 3.0
SLACK = 48 * 1024**2  # bytes: what a file under the reader's caps may take, however small it is
_OUTSIDE = (Path("/evil"), Path("/tmp/evil"), Path("/tmp/canary"))  # where names of the corpus lead


@dataclass(frozen=True)
class Case:
    """A crafted file, the stage that meets it, and how that may end."""

    name: str
    stage: str
    file: str  # relative to the raw folder (preprocess); the archive's name (download)
    content: Maker
    codes: tuple[int, ...] = (4,)


def every_case(share: int = 1) -> Iterator[Case]:
    """Pickles as hidden set, as a training batch and as batches.meta, and archives.

    With a `share`, a few of those that tests/store gives to the readers themselves: four in `share` as hidden set and
    as archive, and one in `share` as the other files.
    """
    refused, few = list(pickles.REFUSED.items()), max(share // 4, 1)
    unpacked = dict(list(archives.REFUSED.items())[::few]) | archives.MISUNDERSTOOD
    yield from _pickles("hidden", HIDDEN, dict(refused[::few]) | pickles.MISUNDERSTOOD)
    yield from _pickles("hidden", HIDDEN, pickles.MAYBE, (0, 4))
    yield from _pickles("batch", _BATCH, dict(refused[::share]) | _made(meanings.BATCH))
    yield from _pickles("meta", _META, dict(refused[share // 2 :: share]) | _made(meanings.META))
    yield from _pickles("meta", _META, meanings.META_TAKEN, (0,))
    for makers, code in ((unpacked, 4), (archives.WITHOUT_HIDDEN, 3), (archives.TAKEN, 0)):
        for name, make in makers.items():
            yield Case(f"archive: {name}", "download", "crafted.zip", make, (code,))


def _pickles(place: str, file: str, makers: Mapping[str, Maker], codes: tuple[int, ...] = (4,)) -> Iterator[Case]:
    for name, make in makers.items():
        yield Case(f"{place}: {name}", "preprocess", file, make, codes)


def _made(contents: Mapping[str, bytes]) -> dict[str, Maker]:
    return {name: made(content) for name, content in contents.items()}


class Target:
    """A folder in which download and preprocess were run on an honest competition; see `target`."""

    def __init__(self, folder: Path, runner: Stages, fresh: bool) -> None:
        self.folder, self.runner, self.fresh = folder, runner, fresh
        self.usual: dict[str, int] = {}  # bytes of memory that each stage takes for honest files
        for name, content in competition().items():
            path = folder / "data/raw" / SLUG / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / "canary_module.py").write_text(_CODE)
        (folder / "data/kept.txt").write_text("kept")
        self.archive.write_bytes(zip_of(competition()))
        for stage in ("preprocess", "download"):
            outcome = self._run(stage)
            assert outcome.code == 0, outcome
            self.usual[stage] = outcome.peak

    @property
    def archive(self) -> Path:
        """What download unpacks."""
        return self.folder / "crafted.zip"

    def _run(self, stage: str) -> Outcome:
        more = ["--from", self.archive.name, "--raw", "data/unpacked", "--force"] if stage == "download" else []
        return self.runner.run(stage, "--competition", SLUG, *more, cwd=self.folder, fresh=self.fresh)

    def check(self, case: Case) -> Outcome:
        """Put the case's file in its place, run the stage, and put the honest file back.

        Raises:
            AssertionError: with the case's name: it was not refused as it must be.
        """
        path = self.archive if case.stage == "download" else self.folder / "data/raw" / SLUG / case.file
        honest, crafted = path.read_bytes(), case.content()
        path.write_bytes(crafted)
        before = self._snapshot()
        outcome = self._run(case.stage)
        after = self._snapshot()
        path.write_bytes(honest)
        self._judge(case, outcome, len(crafted))
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if outcome.code == 0:
            output = "data/unpacked" if case.stage == "download" else "data/processed"
            changed = {name for name in changed if not name.startswith(f"{output}/{SLUG}/")}
        assert not changed, f"{case.name}: changed {sorted(changed)}"
        return outcome

    def _judge(self, case: Case, outcome: Outcome, size: int) -> None:
        assert outcome.code in case.codes, f"{case.name}: {outcome}"
        for line in (outcome.stdout + outcome.stderr).split("\n"):
            assert line.isprintable(), f"{case.name}: {line!r}"
        if outcome.code:
            assert outcome.stderr.count("\n") == 1 and outcome.stderr.startswith("error: "), f"{case.name}: {outcome}"
            assert len(outcome.stderr) < 1000, f"{case.name}: {outcome}"
        else:
            assert not outcome.stderr, f"{case.name}: {outcome}"
        assert outcome.cpu < CPU_SECONDS, f"{case.name}: {outcome.cpu:.1f} s"
        extra = outcome.peak - self.usual[case.stage]
        assert extra <= 3 * size + SLACK, f"{case.name}: {extra / 1e6:.0f} MB for a file of {size / 1e6:.1f} MB"

    def _snapshot(self) -> dict[str, str]:
        """Every file, hidden ones too, but for the locks; and the places outside that names lead to."""
        found = {str(path): str(path.stat().st_mtime_ns) for path in _OUTSIDE if path.exists()}
        for root, _, names in os.walk(self.folder):
            for path in (Path(root) / name for name in names if not name.endswith(".lock")):
                content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
                found[path.relative_to(self.folder).as_posix()] = hashlib.sha256(content).hexdigest()
        return found


@contextmanager
def target(folder: Path, *, fresh: bool = False) -> Iterator[Target]:
    """A target in the empty `folder`; `fresh` starts an interpreter for each case, instead of forking one."""
    with stages() as runner:
        yield Target(folder, runner, fresh)
