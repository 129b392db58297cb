"""A file or a folder is complete or absent: it is written beside its place, synced to disk, then renamed.

A killed process leaves at most a hidden `.NAME.partial` beside the place; the next run overwrites it.
Callers that may run twice at once hold the `lock` of the place meanwhile.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import UsageError


def partial(path: Path) -> Path:
    """Where `path` is written before it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to; it becomes `path` if the block ends well and vanishes if it does not."""
    temporary = partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once, or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, values: object) -> None:
    """Write `values` as indented JSON, or nothing."""
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; it becomes `path` if the block ends well and vanishes if it does not.

    An older `path` stays until its successor is complete on disk.
    """
    temporary, old = partial(path), path.with_name(f".{path.name}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        publish_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Sync the complete folder `temporary` to disk and rename it to `path`, replacing an older one."""
    for entry in sorted(temporary.rglob("*")):
        if not entry.is_symlink():  # a link to a file that is not ours to sync
            _sync(entry)
    _sync(temporary)
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        path.replace(old)
    temporary.replace(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` against other runs; the operating system lets go when the process dies.

    Raises:
        UsageError: another process is at work on `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise UsageError(f"another run is at work on {path}: wait for it to end, or stop it") from None


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk, so that a power cut cannot reorder it with the rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
