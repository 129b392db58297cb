"""Watches, inside one interpreter, in which order a stage's files reach the disk.

A power cut keeps what was synced and may keep anything else in any order.  So a file must be synced after its last
change before it is renamed to its final name, and the folder after that; a folder that was made, in its parent.
"""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

State = tuple[int, int]  # size in bytes, time of the last change in nanoseconds
Entries = frozenset[tuple[str, int]]  # names and inodes

# Written as it happens, and of no importance: TensorBoard's events; the database syncs itself.
OWN_WAYS = ("tensorboard", "sweeps.sqlite3")


@dataclass
class Watch:
    """What happened to final names below `root`/data and `root`/submissions, and what a power cut could spoil."""

    root: Path
    states: dict[int, State] = field(default_factory=dict)  # by inode: as it was when it was last synced
    entries: dict[int, Entries] = field(default_factory=dict)  # likewise, of folders
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
            if not path.is_symlink() and not self.is_synced(path):
                self.violations.append(f"{path.relative_to(self.root)} was not synced before it became {name}")
        self.complain_of(target.parent, f"before {name} came")
        self.renamed.append(name)

    def is_synced(self, path: Path) -> bool:
        """Whether the file or folder is on disk as it is."""
        found = path.stat()
        return self.states.get(found.st_ino) == (found.st_size, found.st_mtime_ns)

    def watched(self, path: Path) -> bool:
        """Whether a path is a final name of the pipeline's."""
        if not path.is_relative_to(self.root):
            return False
        parts = path.relative_to(self.root).parts
        final = not any(part.startswith(".") or part in OWN_WAYS for part in parts)
        return final and parts[:1] in (("data",), ("submissions",))

    def complain_of(self, folder: Path, when: str) -> None:
        """Complain about entries of a folder that are not on disk."""
        synced = self.entries.get(folder.stat().st_ino, frozenset())
        for name, inode in sorted(_entries(folder)):
            if (name, inode) not in synced and self.watched(folder / name):
                self.violations.append(f"{when}: the folder of {(folder / name).relative_to(self.root)} is not synced")

    def everything_is_on_disk(self, when: str) -> None:
        """Complain about all files and entries that are not."""
        self.complain_of(self.root, when)
        for path in filter(self.watched, sorted(self.root.rglob("*"))):
            if path.is_dir():
                self.complain_of(path, when)
            elif not path.is_symlink() and not self.is_synced(path):
                self.violations.append(f"{when}: {path.relative_to(self.root)} is not synced")


def _entries(folder: Path | int) -> Entries:
    with os.scandir(folder) as found:
        return frozenset((entry.name, entry.inode()) for entry in found)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Within the block, everything that the interpreter syncs, renames and starts passes by `watch`."""
    fsync, popen = os.fsync, subprocess.Popen.__init__
    renames = {name: getattr(os, name) for name in ("replace", "rename")}

    def watched_fsync(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        fsync(descriptor)
        watch.sync(descriptor)

    def renaming(name: str) -> Callable[..., None]:
        def watched(source: Any, target: Any, **options: Any) -> None:
            watch.rename(Path.cwd() / source, Path.cwd() / target)
            renames[name](source, target, **options)

        return watched

    def watched_popen(self: Any, *arguments: Any, **options: Any) -> None:
        watch.at_child()
        popen(self, *arguments, **options)

    try:
        os.fsync, subprocess.Popen.__init__ = watched_fsync, watched_popen  # type: ignore[assignment,method-assign]
        for name in renames:
            setattr(os, name, renaming(name))
        yield
    finally:
        os.fsync, subprocess.Popen.__init__ = fsync, popen  # type: ignore[method-assign]
        for name, original in renames.items():
            setattr(os, name, original)
