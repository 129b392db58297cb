"""manifest.json: what a stage wrote, from what, and with which versions.

It is the last file that a stage writes, so a folder with a manifest is complete.
"""

import dataclasses
import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from pipeline.config import fingerprint
from pipeline.errors import BadData
from pipeline.store import atomic
from pipeline.store.fields import parse, require_types

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
