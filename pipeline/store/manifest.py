"""manifest.json: what a stage wrote, from what, and with which versions.

It is the last file that a stage writes, so a folder with a manifest is complete.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from pipeline.config import fingerprint
from pipeline.errors import BadData, printable
from pipeline.store import atomic

# --- Do a dataclass's fields hold what they are declared to hold?  A JSON file that was edited may say an


LARGEST = 1e300  # of numbers: what is beyond, or no number at all, is nobody's accuracy


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or one that nobody writes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON with too many brackets in each other") from None


def require_types(instance: Any) -> None:
    """Check all fields of a dataclass instance, and of those in it.

    Raises:
        TypeError: a field holds something else; names it.
    """
    hints = get_type_hints(type(instance))
    for entry in dataclasses.fields(instance):
        value = getattr(instance, entry.name)
        if not _fits(value, hints[entry.name]):
            raise TypeError(f"{entry.name} cannot be {printable(repr(value), 40)}")
        if dataclasses.is_dataclass(value):
            require_types(value)


def _fits(value: Any, kind: Any) -> bool:
    """Whether the value is of the declared kind; a whole number will do as a float, as JSON has it."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (list, tuple):
        return isinstance(value, origin) and all(_fits(item, parts[0]) for item in value)
    if origin is not None:  # Mapping
        return isinstance(value, Mapping) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST
    if kind is int:
        return type(value) is int  # True is an int, too
    return isinstance(value, NoneType if kind is None else kind)


NAME = "manifest.json"


@dataclass(frozen=True)
class FileRecord:
    """A file's size in bytes and its sha256 in hex."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the file and record it."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
        return cls(path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What a stage wrote into a folder.

    `files` maps paths relative to the folder to records; `inputs` maps what the stage read to fingerprints;
    `facts` holds what the stage found out.
    """

    stage: str
    files: Mapping[str, FileRecord]
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self, *prefixes: str) -> str:
        """Identity of the files whose names begin so: equal contents under equal names, wherever they lie."""
        return fingerprint({k: record.sha256 for k, record in self.files.items() if k.startswith(prefixes)})

    def write(self, folder: Path) -> None:
        """Write folder/manifest.json atomically."""
        atomic.write_json(folder / NAME, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest in `folder`, or None if the stage has not finished there.

        Raises:
            BadData: the manifest is not one of ours.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        try:
            values = parse(path.read_bytes())
            files = {name: FileRecord(**record) for name, record in values["files"].items()}
            manifest = cls(**{**values, "files": files})
            for part in (manifest, *files.values()):
                require_types(part)
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadData(f"{path} is damaged or of another version ({error}): run the stage with --force") from error

    def changed(self, folder: Path) -> list[str]:
        """The files that are not there, or not with their recorded content.  Reads them all."""
        missing = self.missing(folder)
        return missing or [name for name, record in self.files.items() if FileRecord.of(folder / name) != record]

    def missing(self, folder: Path) -> list[str]:
        """The files that are not there, or not in their recorded size.  Fast: contents are not read."""
        return [
            name
            for name, record in self.files.items()
            if not (path := folder / name).is_file() or path.stat().st_size != record.size
        ]


def records(folder: Path, paths: Iterable[Path]) -> dict[str, FileRecord]:
    """Records of `paths`, named relative to `folder`, sorted."""
    return {path.relative_to(folder).as_posix(): FileRecord.of(path) for path in sorted(paths)}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of Python and of `packages`, without importing them."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
