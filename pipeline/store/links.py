"""Files reached through links, and dangling links."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BadData, UsageError, printable


def find(folder: Path, *names: str) -> list[Path]:
    """The files with these names below `folder`, also through links; BadData if none, and a link is dangling."""
    found: dict[Path, Path] = {}  # by resolved path
    lost: list[str | OSError] = []
    for path in walk(folder, lost):
        if nowhere := dangling(path):
            lost.append(nowhere)
        elif path.name in names and path.is_file():
            found.setdefault(path.resolve(), path)
    if lost and not found:
        raise BadData(f"{folder} has no {' or '.join(names)}: {printable(lost[0], 400)}; correct that, or remove it")
    return list(found.values())


def walk(folder: Path, lost: list[str | OSError]) -> Iterator[Path]:
    """All files below `folder`, also through links, each folder once; what cannot be read goes into `lost`."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=lost.append):
        if (real := os.path.realpath(place)) in seen:  # reached through a link as well, perhaps from below
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # trash, notebook checkpoints
        yield from (Path(place, name) for name in sorted(files))


def dangling(path: Path) -> str:
    """A sentence if `path` is a dangling or circular link, else ""."""
    if path.exists() or not path.is_symlink():
        return ""
    return f"{path} is a link to {path.readlink()}, which leads nowhere"


def require_live(path: Path) -> None:
    """UsageError for a dangling link: its target may come back, so it is not replaced."""
    if nowhere := dangling(path):
        raise UsageError(f"{nowhere}: mount it, or name another place (--help shows the options)")
