"""The download and the arrays made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.console import megabytes
from pipeline.errors import BadData, PipelineError
from pipeline.store import atomic
from pipeline.store.manifest import Manifest

State = Literal["absent", "under way", "interrupted", "complete", "stale", "damaged"]
PARTS = ("train", "test", "hidden")


@dataclass(frozen=True)
class Folder:
    """What is in a stage's folder; `text` is for people."""

    path: str
    state: State
    text: str = ""
    manifest: Manifest | None = None  # of what can be used

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"path": self.path, "state": self.state, "text": self.text}


def in_use(path: Path) -> bool:
    """Whether a stage is at work on `path` at this moment."""
    if not path.with_name(f".{path.name}.lock").is_file():
        return False  # nobody ever was; looking shall not make the file
    try:
        with atomic.lock(path):
            return False
    except PipelineError:
        return True
    except OSError:  # the folder is read-only: nobody can be
        return False


def _manifest(folder: Path, at_work: str) -> Manifest | Folder | None:
    """The manifest of what a stage has completed, None without one; else what is the matter with the folder."""
    path = str(folder)
    if in_use(folder):
        return Folder(path, "under way", f"{at_work} is under way")
    try:
        manifest = Manifest.read(folder)
    except BadData as error:
        return Folder(path, "damaged", str(error))
    if manifest is not None and (missing := manifest.missing(folder)):
        return Folder(path, "damaged", f"{folder / missing[0]} is missing or has another size")
    return manifest


def download(folder: Path) -> Folder:
    """data/raw/SLUG."""
    path, manifest = str(folder), _manifest(folder, "a download")
    if isinstance(manifest, Folder):
        return manifest
    if manifest is None:
        if folder.is_dir():
            return Folder(path, "complete", "laid out by hand")
        cache = folder.with_name(f".{folder.name}.download")
        if cache.is_dir():
            size = sum(file.stat().st_size for file in cache.iterdir() if file.is_file())
            return Folder(path, "interrupted", f"interrupted after {megabytes(size)}")
        return Folder(path, "absent", "nothing yet")
    size = sum(record.size for record in manifest.files.values())
    text = f"{len(manifest.files)} files, {megabytes(size)}, from {manifest.inputs.get('source', 'an unknown place')}"
    return Folder(path, "complete", text, manifest)


def arrays(folder: Path, raw: Folder) -> Folder:
    """data/processed/SLUG, made of the download `raw`."""
    path, manifest = str(folder), _manifest(folder, "preprocess")
    if isinstance(manifest, Folder):
        return manifest
    if manifest is None:
        return Folder(path, "absent", "nothing yet")
    text = _counts(manifest.facts)
    if raw.manifest is not None and manifest.inputs != {n: r.sha256 for n, r in raw.manifest.files.items()}:
        return Folder(path, "stale", f"{text}, made of another download", manifest)
    return Folder(path, "complete", text, manifest)


def _counts(facts: Mapping[str, Any]) -> str:
    found = {name: facts[name].get("images") for name in PARTS if isinstance(facts.get(name), Mapping)}
    counts = [f"{count:,} {name}" for name, count in found.items() if isinstance(count, int)]
    return f"{', '.join(counts)} images" if counts else "arrays"
