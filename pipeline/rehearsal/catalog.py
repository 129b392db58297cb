"""The files that the stand-in serves, and the zip of all of them, as Kaggle's download gives it."""

import hashlib
import json
import os
import shutil
import threading
import zipfile
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from pipeline.config import fingerprint
from pipeline.kaggle_api import credentials
from pipeline.store import atomic

ZIP_TIME = (2025, 1, 1, 0, 0, 0)  # of every member, so that the same files make the same zip


@dataclass(frozen=True)
class ServedFile:
    """A file under the name that Kaggle lists it by: its path in the download, with forward slashes."""

    name: str
    path: Path
    size: int  # bytes
    modified_ns: int  # nanoseconds since 1970

    @property
    def modified(self) -> float:
        """Seconds since 1970."""
        return self.modified_ns / 1e9

    def headers(self) -> dict[str, str]:
        """What lets a client resume: who the file is (ETag) and that parts can be had."""
        identity = hashlib.sha256(f"{self.name}\n{self.size}\n{self.modified_ns}".encode()).hexdigest()
        return {
            "Content-Type": "application/octet-stream",
            "ETag": f'"{identity[:32]}"',
            "Last-Modified": formatdate(self.modified, usegmt=True),
            "Accept-Ranges": "bytes",
        }


class Catalog:
    """The regular files below `folder`, but for hidden ones and credentials; the zip is kept in `cache`."""

    def __init__(self, slug: str, folder: Path, cache: Path) -> None:
        self._folder = folder
        self._zip = cache / f"{slug}.zip"
        self._note = cache / f"{slug}.zip.json"  # which files the zip was made of
        self._lock = threading.Lock()

    def files(self) -> dict[str, ServedFile]:
        """What there is now, by name."""
        found = {}
        for parent, folders, names in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for path in (Path(parent, name) for name in sorted(names)):
                if path.name.startswith(".") or path.name.lower() in credentials.FILES or not path.is_file():
                    continue
                name = path.relative_to(self._folder).as_posix()
                found[name] = served(name, path)
        return dict(sorted(found.items()))

    def archive(self) -> ServedFile:
        """The zip of all files, made when it is asked for first or when the files have changed."""
        with self._lock:
            files = self.files()
            wanted = fingerprint({name: [file.size, file.modified_ns] for name, file in files.items()})
            if not (self._zip.is_file() and self._noted() == wanted):
                self._note.unlink(missing_ok=True)
                self._build(files)
                atomic.write_json(self._note, {"files": wanted})
            return served(self._zip.name, self._zip)

    def _noted(self) -> str | None:
        try:
            noted = json.loads(self._note.read_bytes())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return str(noted)

    def _build(self, files: dict[str, ServedFile]) -> None:
        with (
            atomic.replacing(self._zip) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            for name, file in files.items():
                member = zipfile.ZipInfo(name, ZIP_TIME)
                member.external_attr = 0o644 << 16
                member.file_size = file.size  # lets zipfile choose ZIP64 for what needs it
                with file.path.open("rb") as source, archive.open(member, "w") as target:
                    shutil.copyfileobj(source, target, 1024 * 1024)


def served(name: str, path: Path) -> ServedFile:
    """The file as it is now, under that name."""
    status = path.stat()
    return ServedFile(name, path, status.st_size, status.st_mtime_ns)
