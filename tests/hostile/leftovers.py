"""What a killed stage must not leave: half files, lost lines, held locks, two submissions, another result.

Each function returns what is wrong, a line each.
"""

import json
import sqlite3
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.errors import PipelineError
from pipeline.store import atomic, ledger, runs
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.submissions import Evidence, Sidecar
from tests.support import SLUG

RUN = "tiny-run"


def half_files(place: Path) -> list[str]:
    """Files and folders under their final names that are not complete."""
    wrong = []
    for top in ("data/raw", "data/processed", "data/models", "submissions"):
        for path in sorted((place / top).rglob("*")):
            name = path.relative_to(place)
            hidden = any(part.startswith(".") for part in name.parts)
            if not hidden and path.is_file() and (why := _incomplete(path)):
                wrong.append(f"half file {name}: {why}")
    for folder in [*place.glob("data/raw/[!.]*"), *place.glob("data/processed/[!.]*")]:
        if not (folder / MANIFEST).is_file():
            wrong.append(f"half folder {folder.relative_to(place)}: no manifest")
    return wrong


def _incomplete(path: Path) -> str:
    """Why the file is not complete, or ""."""
    try:
        if path.name == MANIFEST:
            manifest = Manifest.read(path.parent)
            return "" if manifest and not manifest.changed(path.parent) else "its files are not as recorded"
        if path.suffix == ".csv" and path.parent.name == "submissions" and path.name != ledger.NAME:
            return _unlike_sidecar(path)
        _parse(path)
    except (PipelineError, ValueError, OSError, SafetensorError, sqlite3.Error, zipfile.BadZipFile) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _parse(path: Path) -> None:
    """Raise an error for a file that is cut off; files of other kinds have a manifest with their hashes."""
    if path.name == ledger.NAME:
        ledger.read(path)
    elif path.name == runs.LATEST:
        runs.Run.open(path.parent, None)
    elif path.suffix in (".json", ".jsonl"):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text)
    elif path.suffix == ".npy":
        np.load(path, allow_pickle=False)
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix in (".pt", ".npz"):
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                raise ValueError(f"{bad} is damaged")
    elif path.suffix == ".sqlite3":
        with sqlite3.connect(path) as database:
            if (answer := database.execute("pragma integrity_check").fetchone()) != ("ok",):
                raise ValueError(answer)


def _unlike_sidecar(csv: Path) -> str:
    """Why CSV, sidecar and evidence do not go together; a partial file says that predict knows of it."""
    if atomic.partial(csv).exists():
        return ""
    sidecar, evidence = Sidecar.read(csv), Evidence.read(csv)
    shas = {sidecar and sidecar.csv_sha256, evidence and evidence.csv_sha256, FileRecord.of(csv).sha256}
    return "" if len(shas) == 1 else "its sidecar or evidence is another's"


def lost_lines(before: bytes, book: Path) -> list[str]:
    """Whether the ledger lost a line that it had."""
    now = book.read_bytes() if book.is_file() else b""
    return [] if now.startswith(before) else [f"lost line: {before!r} became {now!r}"]


def held_locks(place: Path) -> list[str]:
    """Locks that somebody holds although nobody is at work."""
    held = []
    for path in sorted(place.rglob(".*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            held.append(f"held lock: {path.relative_to(place)}")
    return held


def double_submissions(place: Path) -> list[str]:
    """CSVs that the mock server got more than once."""
    double = []
    for path in [place / "state/state.json", *place.glob("data/rehearsal/*/state.json")]:
        if path.is_file():
            counted = Counter(item["sha256"] for item in json.loads(path.read_bytes())["submissions"])
            double += [f"double submission: {sha}" for sha, count in counted.items() if count > 1]
    return double


def unlike(stage: str, place: Path, undisturbed: Path) -> list[str]:
    """What differs from where nothing was killed: arrays, weights and CSVs to the byte, and what was submitted."""
    wrong = [
        f"other result: {name}"
        for name in _results(stage, undisturbed)
        if not (place / name).is_file() or (place / name).read_bytes() != (undisturbed / name).read_bytes()
    ]
    entries = ledger.read(place / "submissions" / ledger.NAME)
    states = [entry.status for entry in ledger.current(entries, SLUG)]
    if stage == "predict" and len(ledger.predictions(entries, SLUG)) != 1:
        wrong.append("lost prediction: the ledger has none of this CSV")
    if stage in ("submit", "check") and states != [ledger.COMPLETE]:
        wrong.append(f"other result: the ledger says {states}")
    return wrong


def _results(stage: str, place: Path) -> list[str]:
    """The files that must be equal to the byte, relative to the place; a sweep's are as many as its best run's."""
    if stage == "sweep":
        return []
    patterns = ("data/raw/*/**/*", "data/processed/*/*.npy", f"data/models/{RUN}/weights.safetensors",
                "data/models/LATEST", f"submissions/{RUN}.csv")  # fmt: skip
    found = [path for pattern in patterns for path in place.glob(pattern) if path.is_file()]
    return [path.relative_to(place).as_posix() for path in found if path.name != MANIFEST]
