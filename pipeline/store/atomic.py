"""A file or a folder is complete or absent: it is written beside its place, synced to disk, then renamed.

A killed or interrupted process leaves at most a hidden `.NAME.partial` beside the place; the next run overwrites it.
Callers that may run twice at once hold the `lock` of the place meanwhile.
"""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import Log, UsageError
from pipeline.store import links

# What file systems answer that cannot sync a folder (network mounts, FUSE, exFAT).
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF)


def write_json(path: Path, values: object) -> None:
    """Write `values` as indented JSON, or nothing."""
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once, or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to; it becomes `path` if the block ends well and vanishes if it fails.

    If the block is interrupted it stays, as when the process is killed: status tells by it that a stage was at work.
    """
    temporary = partial(path)
    make_folder(path.parent)
    try:
        with naming(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path, keep: Log | None = None) -> Iterator[Path]:
    """Yields an empty folder to fill; it becomes `path` if the block ends well and vanishes if it does not.

    An older `path` stays until its successor is complete on disk, then it is removed, or set aside, as `keep` is told.
    """
    temporary, old = partial(path), path.with_name(f".{path.name}.old")
    _restore(old, path)
    for leftover in (temporary, old):
        _remove(leftover)
    make_folder(path.parent)
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            for entry in (temporary, *temporary.rglob("*")):
                if not entry.is_symlink():  # a link to a file that is not ours to sync
                    _sync(entry)
            if path.exists():
                set_aside(path, keep) if keep else path.replace(old)
            temporary.replace(path)
            _sync(path.parent)
            _remove(old)
    finally:
        _restore(old, path)
        shutil.rmtree(temporary, ignore_errors=True)


def set_aside(path: Path, log: Log) -> None:
    """Rename what is at `path`, because it is not ours to replace: to NAME.bak, NAME.bak2, ..., as `log` is told."""
    names = (path.with_name(f"{path.name}.bak{k if k > 1 else ''}") for k in count(1))
    kept = next(name for name in names if not os.path.lexists(name))
    path.replace(kept)
    _sync(path.parent)
    log(f"{path} holds what is not ours, and is kept as {kept}")


def partial(path: Path) -> Path:
    """Where `path` is written before it is complete."""
    return path.with_name(f".{path.name}.partial")


def _restore(old: Path, path: Path) -> None:
    """Bring an older folder back, if something ended `replacing_folder` between its two renames."""
    if old.exists() and not path.exists():
        old.replace(path)


def _remove(folder: Path) -> None:
    """Remove a folder, or a link to one that is not ours, as far as possible."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, and sync each one's entry to disk."""
    links.require_live(path)
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block name `path`: by itself it names nothing when writing, and two when renaming."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename2 is not None:
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def lock(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold `path` against other runs; the operating system lets go when the process dies.

    Args:
        wait: seconds that another process may hold it meanwhile.

    Raises:
        UsageError: another process is at work on `path`, or it is a link that leads nowhere.
        OSError: the file system has no locks.
    """
    links.require_live(path)
    make_folder(path.parent)
    held = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait)
    try:
        # filelock says so where it takes a file for a lock because there is no flock.
        with naming(path), warnings.catch_warnings(action="ignore"):
            held.acquire()
    except Timeout:
        raise UsageError(f"another run is at work on {path}: wait for it to end, or stop it") from None
    except NotImplementedError:  # older versions of filelock where flock is missing
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(path)) from None
    try:
        yield
    finally:
        held.release()


def is_locked(path: Path) -> bool:
    """Whether another run holds `path` at this moment; looking leaves no trace."""
    if not path.with_name(f".{path.name}.lock").is_file():
        return False  # nobody ever did
    try:
        with lock(path):
            return False
    except UsageError:
        return True
    except OSError:  # the folder is read-only, or has no locks
        return False


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk, so that a power cut cannot reorder it with the rename."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_SYNC:
            raise
