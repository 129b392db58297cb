"""The folder of a run that is being trained: its name, who holds it, and what makes it complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config import fingerprint
from pipeline.errors import UsageError
from pipeline.store import atomic
from pipeline.store.manifest import Manifest, records, versions
from pipeline.store.runs import CONFIG, METRICS, RESULT, WEIGHTS, RunCard


def default_name(card: RunCard) -> str:
    """The preset, and enough of the card's fingerprint to tell other options or data apart."""
    return f"{card.config.preset}-{fingerprint(card.to_dict())[:8]}"


@contextmanager
def claimed(folder: Path, card: RunCard, force: bool, first: bool) -> Iterator[None]:
    """Hold a run's folder, prepared for training; of several processes the first does, and the others need not.

    Raises:
        UsageError: another process is at work on it, or it holds a run with other options (and not `force`).
    """
    if not first:
        yield
        return
    with atomic.lock(folder):
        if force:
            _discard(folder)
        require_same(folder, card)
        atomic.write_json(folder / CONFIG, card.to_dict())
        yield


def require_same(folder: Path, card: RunCard) -> None:
    """Refuse to go on with a run that has other options.

    Raises:
        UsageError: naming the options that differ.
    """
    if not (folder / CONFIG).is_file():
        return
    old, new = _flat(RunCard.read(folder).to_dict()), _flat(card.to_dict())
    if changes := [f"{key}: {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]:
        raise UsageError(
            f"run {folder.name} exists with other options ({'; '.join(changes)}): choose another name with "
            "--run, or train it anew with `python -m pipeline.train --force` and these options"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"config": {"epochs": 3}} -> {"config.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _discard(folder: Path) -> None:
    """Remove a run.  It is renamed first: a kill must not leave a part of it to go on with."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
        shutil.rmtree(old)


def complete(folder: Path, card: RunCard) -> None:
    """Write the manifest, which makes the run complete."""
    names = (CONFIG, WEIGHTS, METRICS, RESULT)
    Manifest(
        stage="train",
        files=records(folder, [folder / name for name in names]),
        inputs={"data": card.data},
        versions=versions("torch", "numpy", "safetensors", "scikit-learn"),
    ).write(folder)
