"""manifest.json: a stage's outputs, inputs and versions; and the one reader of our JSON files.

The manifest is the last file that a stage writes, so a folder with a manifest is complete.
"""

import dataclasses
import hashlib
import json
import platform
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline import commands
from pipeline.config import Paths, fingerprint
from pipeline.errors import BadData, MissingInput, PipelineError, printable
from pipeline.store import atomic

NAME = "manifest.json"
KAGGLE = "kaggle"  # a download's source, when it is not a path
LARGEST_NUMBER = 1e300  # larger numbers and NaN are damage
T = TypeVar("T")
_DAMAGE = (
    OSError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip


def read_json(path: Path, kind: type[T], cure: str) -> T:
    """The JSON file `path` as a `kind`, see `from_json`; `cure` says what to do if it is missing or damaged.

    Raises:
        MissingInput: there is no such file.
        BadData: it is damaged or of another version.
    """
    with reading(path, cure):
        content: T = from_json(kind, json.loads(path.read_bytes()))
    return content


@contextmanager
def reading(path: Path, cure: str) -> Iterator[None]:
    """Turn any error about the content of `path` into one of `read_json`'s."""
    try:
        yield
    except FileNotFoundError:
        raise MissingInput(f"{path} is missing: {cure}") from None
    except PermissionError:
        raise
    except (*_DAMAGE, PipelineError) as error:
        raise BadData(f"{path} is damaged or of another version ({printable(error)}): {cure}") from error


def from_json(kind: Any, value: Any, name: str = "") -> Any:
    """A JSON value as a `kind`: a dataclass, or a type that its fields may have.

    A dataclass with an older format has a static method `upgraded`, from old values to today's.

    Raises:
        TypeError: a value has another type; the message has its dotted `name`.
        ValueError, PipelineError: from a dataclass that checks its fields.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # T | None
        return None if value is None else from_json(parts[0], value, name)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(kind, value, name)
    if origin is Mapping and isinstance(value, dict):
        return {key: from_json(parts[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        kinds = parts[:1] * len(value) if origin is list or parts[-1] is Ellipsis else parts
        if len(kinds) == len(value):
            return origin(from_json(part, item, name) for part, item in zip(kinds, value, strict=True))
    elif _is(kind, value):
        return value
    raise TypeError(f"{printable(name, 80) or 'the content'} cannot be {printable(repr(value), 40)}")


def _dataclass(kind: Any, values: dict[str, Any], name: str) -> Any:
    if hasattr(kind, "upgraded"):
        values = kind.upgraded(values)
    prefix = f"{name}." if name else ""
    hints = get_type_hints(kind)
    if unknown := [key for key in values if key not in hints]:
        raise TypeError(f"it has {printable(prefix + unknown[0], 80)}, which is unknown")
    for each in dataclasses.fields(kind):
        if each.default is each.default_factory is dataclasses.MISSING and each.name not in values:
            raise TypeError(f"it lacks {prefix}{each.name}")
    return kind(**{key: from_json(hints[key], value, prefix + key) for key, value in values.items()})


def _is(kind: Any, value: Any) -> bool:
    """Whether a JSON scalar has the declared type; a float may be a whole number."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER
    if kind is int:
        return type(value) is int  # True is an int, too
    return kind is Any or (isinstance(kind, type) and isinstance(value, kind))


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
    """A stage's files (named relative to its folder), fingerprints of its inputs, versions, and facts that it found."""

    stage: str
    files: Mapping[str, FileRecord]
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self, *prefixes: str) -> str:
        """Identity (sha256 hex) of the files with these name prefixes, by names and contents."""
        return fingerprint({k: record.sha256 for k, record in self.files.items() if k.startswith(prefixes)})

    def write(self, folder: Path) -> None:
        """Write folder/manifest.json atomically."""
        atomic.write_json(folder / NAME, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path, cure: str = "run the stage with --force") -> Self | None:
        """The manifest in `folder`, None if the stage has not finished there; BadData if it is damaged."""
        path = folder / NAME
        return read_json(path, cls, cure) if path.is_file() else None

    @property
    def source_option(self) -> list[str]:
        """The option with which download repeats this one: none from Kaggle."""
        source = self.inputs.get("source", KAGGLE)
        return [] if source == KAGGLE else ["--from", source]

    def download_again(self, folder: Path) -> str:
        """The command that repeats the download in `folder`, data/raw/SLUG, from its source."""
        return commands.command("download", folder.name, Paths(raw=folder.parent), *self.source_option)

    def changed(self, folder: Path) -> list[str]:
        """The files that are missing or have another content.  Reads them all."""
        missing = self.missing(folder)
        return missing or [name for name, record in self.files.items() if FileRecord.of(folder / name) != record]

    def missing(self, folder: Path) -> list[str]:
        """The files that are missing or have another size.  Fast: contents are not read."""
        sizes = {name: path.stat().st_size for name in self.files if (path := folder / name).is_file()}
        return [name for name, record in self.files.items() if sizes.get(name) != record.size]


def strangers(folder: Path, *ours: str) -> list[str]:
    """The files in a stage's folder that are neither in its manifest (if that is readable) nor match `ours`.

    `ours` are shell patterns whose asterisk also matches a slash.
    """
    manifest = None
    with suppress(BadData):
        manifest = Manifest.read(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    others = found - {NAME, *(manifest.files if manifest else ())}
    return sorted(name for name in others if not any(fnmatchcase(name, pattern) for pattern in (".*", "*/.*", *ours)))


def records(folder: Path, paths: Iterable[Path]) -> dict[str, FileRecord]:
    """Records of `paths`, named relative to `folder`, sorted."""
    return {path.relative_to(folder).as_posix(): FileRecord.of(path) for path in sorted(paths)}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of Python and of `packages`, without importing them."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
