"""Complete or absent: files and folders are written beside their place, synced to disk, then renamed.

A killed process leaves at most `.NAME.partial`, which the next run overwrites.  Callers that may run twice at once hold
the `lock` of the place.
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

# Errors of file systems that cannot sync a folder (network mounts, FUSE, exFAT).
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF)


def write_json(path: Path, values: object) -> None:
    """Write `values` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to; it becomes `path` if the block succeeds and is removed if it fails.

    After an interrupt or a kill it stays, and status reports an interrupted stage.
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
    """Yields an empty folder to fill; it becomes `path` if the block succeeds and is removed if it does not.

    An older `path` stays until its successor is complete on disk; then it is removed, or with `keep` set aside.
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
                if not entry.is_symlink():  # another program's file
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
    """Rename `path`, which holds files of the user's, to NAME.bak, NAME.bak2, ..."""
    names = (path.with_name(f"{path.name}.bak{k if k > 1 else ''}") for k in count(1))
    kept = next(name for name in names if not os.path.lexists(name))
    path.replace(kept)
    _sync(path.parent)
    log(f"{path} holds files of yours and is kept as {kept}")


def partial(path: Path) -> Path:
    """The path that `path` is written to before it is complete."""
    return path.with_name(f".{path.name}.partial")


def _restore(old: Path, path: Path) -> None:
    """Bring the older folder back if `replacing_folder` was killed between its two renames."""
    if old.exists() and not path.exists():
        old.replace(path)


def _remove(folder: Path) -> None:
    """Remove a folder, or a link to one, as far as possible."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, and sync each entry to disk."""
    links.require_live(path)
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an OSError of the block name `path`: by itself it names no file, or two."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename2 is not None:
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def lock(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Lock `path` against other processes, waiting up to `wait` seconds; the lock ends with the process.

    Raises:
        UsageError: another process holds it, or `path` is a dangling link.
        OSError: the file system has no locks.
    """
    links.require_live(path)
    make_folder(path.parent)
    held = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait)
    try:
        # filelock warns if it uses a plain file because flock is missing.
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
    """Whether another process holds `path`; leaves no trace."""
    if links.dangling(path) or not path.with_name(f".{path.name}.lock").is_file():
        return False  # nobody ever did
    try:
        with lock(path):
            return False
    except UsageError:
        return True
    except OSError:  # a read-only folder, or one without locks
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
