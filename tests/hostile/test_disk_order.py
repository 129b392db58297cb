"""What a power cut can spoil: nothing is renamed before it is synced, nobody is told before the ledger knows.

A power cut keeps what was synced and may keep anything else in any order.  So a file must be synced after its last
change before it is renamed to its final name, and the folder after that; a folder that was made, in its parent.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import pytest

from pipeline import check, download, predict, preprocess, submit, train
from pipeline.kaggle_api import client
from pipeline.rehearsal.server import MockKaggle
from pipeline.store import atomic, ledger
from pipeline.store.runs import METRICS, TENSORBOARD
from tests.support import serve, write_download
from tests.training.tiny import SLUG, before_step, write_tiny

RUN = "tiny-run"
RAW, PROCESSED, MODEL, CSV = "data/raw/tiny", "data/processed/tiny", f"data/models/{RUN}", f"submissions/{RUN}"
COMPETITION = ("--competition", SLUG)
TRAINING = (*COMPETITION, "--preset", "rehearsal", "--epochs", "2", "--device", "cpu", "--run", RUN)
# In their order: the options of each stage, and the final names in the order in which they come.
STAGES: dict[str, tuple[ModuleType, tuple[str, ...], list[str]]] = {
    "download": (download, COMPETITION, [RAW]),
    "preprocess": (preprocess, COMPETITION, [PROCESSED]),
    "preprocess again": (preprocess, (*COMPETITION, "--force"), [PROCESSED]),
    "train": (train, (*TRAINING, "--batch-size", "20"), [
        *(f"{MODEL}/{name}.json" for name in ("config", "execution")),
        *(2 * [f"{MODEL}/metrics.jsonl", f"{MODEL}/checkpoint.pt"]),
        *(f"{MODEL}/{name}" for name in ("metrics.jsonl", "weights.safetensors", "result.json", "manifest.json")),
        "data/models/LATEST",
    ]),
    "predict": (predict, ("--device", "cpu"), [f"{CSV}.npz", f"{CSV}.json", f"{CSV}.csv", "submissions/ledger.csv"]),
    "submit": (submit, ("--poll", "0.1"), 3 * ["submissions/ledger.csv"]),  # sending, pending, complete
    "check": (check, COMPETITION, []),
}  # fmt: skip

# Written as it happens, and of no importance: TensorBoard's events; the database syncs itself.
OWN_WAYS = ("tensorboard", "sweeps.sqlite3")

# --- who watches ------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """What happened to final names below `root`/data and `root`/submissions, and what a power cut could spoil."""

    root: Path
    states: dict[int, tuple[int, int]] = field(default_factory=dict)  # by inode: size and time when last synced
    entries: dict[int, set[tuple[str, int]]] = field(default_factory=dict)  # of folders: names and inodes, likewise
    renamed: list[str] = field(default_factory=list)  # the final names, in order
    violations: list[str] = field(default_factory=list)
    at_child: Callable[[], None] = lambda: None  # called before a child process starts

    def sync(self, descriptor: int) -> None:
        """A file or a folder was synced."""
        found = os.fstat(descriptor)
        self.states[found.st_ino] = (found.st_size, found.st_mtime_ns)
        if stat.S_ISDIR(found.st_mode):
            self.entries[found.st_ino] = _entries(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """`source` is about to become `target`."""
        if not self.watched(target):
            return
        name = target.relative_to(self.root).as_posix()
        for path in (source, *(source.rglob("*") if source.is_dir() else ())):
            if not self.is_synced(path):
                self.violations.append(f"{path.relative_to(self.root)} was not synced before it became {name}")
        self.complain_of(target.parent, f"before {name} came")
        self.renamed.append(name)

    def is_synced(self, path: Path) -> bool:
        """Whether the file or folder is on disk as it is; where a link leads to is not ours."""
        found = path.lstat()
        return path.is_symlink() or self.states.get(found.st_ino) == (found.st_size, found.st_mtime_ns)

    def watched(self, path: Path) -> bool:
        """Whether a path is a final name of the pipeline's."""
        if not path.is_relative_to(self.root):
            return False
        parts = path.relative_to(self.root).parts
        final = not any(part.startswith(".") or part in OWN_WAYS for part in parts)
        return final and parts[:1] in (("data",), ("submissions",))

    def complain_of(self, folder: Path, when: str) -> None:
        """Complain about entries of a folder that are not on disk."""
        for name, _ in sorted(_entries(folder) - self.entries.get(folder.stat().st_ino, set())):
            if self.watched(folder / name):
                self.violations.append(f"{when}: the folder of {(folder / name).relative_to(self.root)} is not synced")

    def everything_is_on_disk(self, when: str) -> None:
        """Complain about all files and entries that are not."""
        self.complain_of(self.root, when)
        for path in filter(self.watched, sorted(self.root.rglob("*"))):
            if path.is_dir():
                self.complain_of(path, when)
            elif not self.is_synced(path):
                self.violations.append(f"{when}: {path.relative_to(self.root)} is not synced")


def _entries(folder: Path | int) -> set[tuple[str, int]]:
    with os.scandir(folder) as found:
        return {(entry.name, entry.inode()) for entry in found}


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Within the block, what the interpreter syncs and renames, and the client's child processes, pass by `watch`."""
    fsync, popen = os.fsync, vars(client)["subprocess"].Popen

    def synced(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        fsync(descriptor)
        watch.sync(descriptor)

    def renaming(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, **options: Any) -> None:
            watch.rename(Path.cwd() / source, Path.cwd() / target)
            rename(source, target, **options)

        return renamed

    def started(*arguments: Any, **options: Any) -> Any:
        watch.at_child()
        return popen(*arguments, **options)

    with (
        mock.patch.multiple(os, fsync=synced, replace=renaming(os.replace), rename=renaming(os.rename)),
        mock.patch("pipeline.kaggle_api.client.subprocess.Popen", started),
    ):
        yield


# --- what is watched --------------------------------------------------------------------------------------------


class Observed(NamedTuple):
    """What a stage did: for each start of a child process, the ledger's last status and how much Kaggle had got."""

    code: int
    renamed: list[str]
    violations: list[str]
    children: list[tuple[str, int]]


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory, quick_client: None) -> dict[str, Observed]:
    """All stages one after the other under the eye of a Watch."""
    place = tmp_path_factory.mktemp("order")
    write_download(place / "source")
    (place / "labels.csv").write_text("ID,Labels\n" + "".join(f"{100 + k},{k % 10}\n" for k in range(30)))
    watch = Watch(place)
    with serve(place) as kaggle, mock.patch.dict(os.environ, kaggle.environment, clear=True), chdir(place):
        return {name: observe(watch, stage, options, kaggle) for name, (stage, options, _) in STAGES.items()}


def observe(watch: Watch, stage: ModuleType, options: tuple[str, ...], kaggle: MockKaggle) -> Observed:
    children: list[tuple[str, int]] = []

    def at_child() -> None:
        watch.everything_is_on_disk("when a child process starts")
        entries = ledger.read(watch.root / "submissions" / ledger.NAME)
        children.append((entries[-1].status if entries else "", kaggle.calls.count("CreateSubmission")))

    watch.at_child, watch.renamed, watch.violations = at_child, [], []
    with watching(watch):
        code = stage.main(options)
    watch.everything_is_on_disk("at the end")
    return Observed(code, watch.renamed, watch.violations, children)


@pytest.mark.parametrize("stage", STAGES)
def test_each_final_name_comes_in_its_turn_and_a_power_cut_spoils_none(order: dict[str, Observed], stage: str) -> None:
    assert order[stage][:3] == (0, STAGES[stage][2], [])


def test_the_ledger_is_on_disk_before_kaggle_is_told(order: dict[str, Observed]) -> None:
    """That each child process finds it synced is among the violations; here: which lines it finds."""
    seen = order["submit"].children
    assert ("sending", 0) in seen and set(seen) <= {("predicted", 0), ("sending", 0), ("sending", 1), ("pending", 1)}
    assert order["check"].children[0] == ("complete", 1)


def test_the_watch_sees_what_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_sync", lambda _path: None)
    watch = Watch(tmp_path)
    with watching(watch), atomic.replacing(tmp_path / "data/new") as path, path.open("w") as stream:
        os.fsync(stream)
        stream.write("changed after its sync")
    watch.everything_is_on_disk("at the end")
    assert "data/.new.partial was not synced before it became data/new" in watch.violations
    assert "at the end: the folder of data is not synced" in watch.violations


# What is not synced is TensorBoard's events; and of a torn file of metrics no checkpoint knows.
def test_torn_metrics_and_events_do_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path / "data/processed")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        before_step(patched, 1, 2, mock.Mock(side_effect=KeyboardInterrupt))
        assert train.main(TRAINING) == 130
    folder = tmp_path / MODEL
    first = (folder / METRICS).read_text()
    for path in (folder / METRICS, *(folder / TENSORBOARD).iterdir()):
        path.write_bytes(path.read_bytes()[:-9])
    assert train.main(TRAINING) == 0
    rows = (folder / METRICS).read_text().splitlines(keepends=True)
    assert rows[0] == first
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]
    assert len(list((folder / TENSORBOARD).iterdir())) == 2
