"""What somebody does to a folder in which all stages have run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.store import runs
from pipeline.store.manifest import Manifest, records

CSV, SIDECAR, EVIDENCE = (f"submissions/tiny-run.{end}" for end in ("csv", "json", "npz"))
RUN = "data/models/tiny-run"

Edit = Callable[[Path], object]


def nothing(_place: Path) -> None:
    pass


def remove(name: str) -> Edit:
    return lambda place: shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()


def move(old: str, new: str) -> Edit:
    return lambda place: (place / old).rename(place / new)


def edit(name: str, change: Callable[[bytes], bytes]) -> Edit:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes()))


def values(name: str, *keys: str, **changes: Any) -> Edit:
    """Change a JSON file, at the top or below `keys`; what becomes None is taken out."""

    def change(content: bytes) -> bytes:
        whole = part = json.loads(content)
        for key in keys:
            part = part[key]
        part.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del part[key]
        return json.dumps(whole).encode()

    return edit(name, change)


def flip(name: str) -> Edit:
    """Turn one bit in the middle of a file over."""

    def change(content: bytes) -> bytes:
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]

    return edit(name, change)


def of_run(change: Edit) -> Edit:
    """As if train had written the run so."""

    def do(place: Path) -> None:
        change(place)
        folder = place / RUN
        names = (runs.CONFIG, runs.WEIGHTS, runs.RESULT, runs.METRICS)
        Manifest("train", records(folder, [folder / name for name in names])).write(folder)

    return do
