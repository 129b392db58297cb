"""A file or a folder is complete or absent: it is written beside its place, synced to disk, then renamed.

A killed or interrupted process leaves at most a hidden `.NAME.partial` beside the place; the next run overwrites it.
Callers that may run twice at once hold the `lock` of the place meanwhile.
"""

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import PipelineError, UsageError

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP)  # what some network file systems answer to the sync of a folder


def partial(path: Path) -> Path:
    """Where `path` is written before it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to; it becomes `path` if the block ends well and vanishes if it fails.

    If the block is interrupted it stays, as when the process is killed: predict tells by it that it was at work.
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
    temporary = partial(path)
    _restore(path)
    for leftover in (temporary, _old(path)):
        _remove(leftover)
    make_folder(path.parent)
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            publish_folder(temporary, path)
    finally:
        _restore(path)
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Sync the complete folder `temporary` to disk and rename it to `path`, replacing an older one."""
    for entry in sorted(temporary.rglob("*")):
        if not entry.is_symlink():  # a link to a file that is not ours to sync
            _sync(entry)
    _sync(temporary)
    if path.exists():
        path.replace(_old(path))
    temporary.replace(path)
    _sync(path.parent)
    _remove(_old(path))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block a refusal of the system's names `path`: by itself it does so when opening, not when writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _remove(folder: Path) -> None:
    """Remove a folder, or a link to one that is not ours, as far as possible."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _old(path: Path) -> Path:
    """Where an older folder lies while its successor takes its place."""
    return path.with_name(f".{path.name}.old")


def _restore(path: Path) -> None:
    """Bring an older folder back, if something ended publish_folder between its two renames."""
    if _old(path).exists() and not path.exists():
        _old(path).replace(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, and sync each one's entry to disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


@contextmanager
def lock(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold `path` against other runs; the operating system lets go when the process dies.

    Args:
        wait: seconds that another process may hold it meanwhile.

    Raises:
        UsageError: another process is at work on `path`.
        PipelineError: the file system has no locks.
    """
    make_folder(path.parent)
    held = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait)
    try:
        held.acquire()
    except Timeout:
        raise UsageError(f"another run is at work on {path}: wait for it to end, or stop it") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise PipelineError(
            f"{path} lies on a file system without locks ({error.strerror}), where two runs could meet: "
            "name a folder on another (--help shows the options)"
        ) from error
    try:
        yield
    finally:
        held.release()


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk, so that a power cut cannot reorder it with the rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


# --- What kind of machine this is, for people: `Linux 6.1.0 x86_64, AMD EPYC 9R14, 2 cores, 24 GB`.


CPUINFO = Path("/proc/cpuinfo")  # Linux has the processor's name there


def description() -> str:
    """Operating system, processor, the cores and the memory (GB of 10**9 bytes) as far as they are known."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    cores = os.cpu_count() or 1
    parts = [system, _processor(), f"{cores} core{'s' if cores > 1 else ''}", _memory()]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return " ".join(found[1].split()) if found else platform.processor()


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return ""
    return f"{size / 1e9:.0f} GB"


# --- The project's own files, as far as somebody needs them who runs it elsewhere: a Kaggle kernel, a win


ROOT = Path(__file__).resolve().parents[2]
TOP = ("requirements.txt", "run_all.sh")
ENDINGS = (".py", ".j2", ".css")


def files() -> dict[str, Path]:
    """Name (relative, with forward slashes) -> path of each, sorted; no data, no tests, nothing hidden."""
    found = [ROOT / name for name in TOP if (ROOT / name).is_file()]
    found += [path for path in (ROOT / "pipeline").rglob("*") if path.suffix in ENDINGS and path.is_file()]
    names = {path.relative_to(ROOT).as_posix(): path for path in found}
    return {name: names[name] for name in sorted(names) if not any(part.startswith(".") for part in name.split("/"))}
