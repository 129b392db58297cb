"""Files that are reached by links, and links that lead nowhere."""

import os
from pathlib import Path

from pipeline.errors import BadData, UsageError, printable


def find(folder: Path, *names: str) -> list[Path]:
    """The files with these names anywhere below `folder`, through links too; one that is reached twice counts once.

    Raises:
        BadData: there is none, and a link leads nowhere, or a folder cannot be read.
    """
    found: dict[Path, Path] = {}  # by what it is without links
    seen: set[str] = set()
    lost: list[str | OSError] = []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=lost.append):
        if (real := os.path.realpath(place)) in seen:  # reached by a link as well, perhaps from below
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # a bin, checkpoints of notebooks
        for path in (Path(place, name) for name in sorted(files)):
            if nowhere := dangling(path):
                lost.append(nowhere)
            elif path.name in names and path.is_file():
                found.setdefault(path.resolve(), path)
    if lost and not found:
        raise BadData(f"{folder} has no {' or '.join(names)}: {printable(lost[0], 400)}; correct that, or remove it")
    return list(found.values())


def dangling(path: Path) -> str:
    """That `path` is a link which leads nowhere, or in a circle, in words; "" if it is not."""
    if path.exists() or not path.is_symlink():
        return ""
    return f"{path} is a link to {path.readlink()}, which leads nowhere"


def require_live(path: Path) -> None:
    """UsageError for a link that leads nowhere: what it leads to may come back, so it is not replaced."""
    if nowhere := dangling(path):
        raise UsageError(f"{nowhere}: mount it, or name another place (--help shows the options)")
