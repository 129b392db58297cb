"""The packages in exact versions."""

import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

CHECKS = "# What checks it"  # begins the second part of the project's requirements.txt, which no package needs
UNKNOWN = "# The CSV was predicted on another machine, which recorded no more versions than these."
NAME = re.compile(r"[A-Za-z0-9._-]+")


def requirements(source: Path, recorded: Mapping[str, str]) -> list[str]:
    """The lines of a requirements.txt for what the project's own, `source`, says runs it.

    Args:
        recorded: the versions with which the CSV was predicted.  They decide; if those here are the same, so are
            probably the others, and are pinned, too.  If the CSV comes from another machine, nothing is known of
            the others there, and the project's ranges stay.
    """
    wanted = [line.partition("#")[0].strip() for line in source.read_text().partition(CHECKS)[0].splitlines()]
    ranges = {match.group(): line for line in wanted if (match := NAME.match(line))}
    here = {name: version for name in ranges if (version := _installed(name)) is not None}
    known = {name: release(version) for name, version in recorded.items() if name in ranges}
    elsewhere = any(here.get(name) != version for name, version in known.items())
    pins = known if elsewhere else {**here, **known}
    lines = [f"{name}=={pins[name]}" if name in pins else line for name, line in ranges.items()]
    python = f"# Python {recorded.get('python', platform.python_version())}"
    return [python, *([UNKNOWN] if elsewhere else []), *lines]


def release(version: str) -> str:
    """2.14.0+cu130 -> 2.14.0: only that much does an index of packages know."""
    return version.partition("+")[0]


def _installed(name: str) -> str | None:
    try:
        return release(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None
