"""Whether Kaggle has an order already: each push makes a new version, and ends the one that runs."""

from pathlib import Path

from pipeline.errors import BadData, Log, MissingInput, UsageError
from pipeline.kaggle_api import kernels
from pipeline.kaggle_api.client import Kaggle
from pipeline.kaggle_api.kernels import Found
from pipeline.kernels.order import AGAIN, Note
from pipeline.kernels.packing import Parcel


def has(note: Note, parcel: Parcel, found: Found, folder: Path, log: Log) -> bool:
    """Whether Kaggle has the order, be it complete or not; `folder` is that of the notes.

    Raises:
        UsageError: another kernel is there, or the one that was there is not shown any more.
    """
    if found.source is None:
        _require_new(note, folder)
        return False
    if note.order.tag not in found.source:
        raise UsageError(f"{note.url} is another kernel, or has other options: choose another --run, or {AGAIN}")
    if parcel.tag not in found.source:
        log(f"kernel: the project's files have changed since it was pushed: {AGAIN} if it shall have them")
    return True


def runs(note: Note, parcel: Parcel, found: Found, kaggle: Kaggle) -> bool:
    """Whether the very same waits or runs there: a forced push that was interrupted, or whose answer was lost."""
    if found.source is None or note.order.tag not in found.source or parcel.tag not in found.source:
        return False
    return kernels.session(kaggle, note.ref, note.version).status in kernels.WAITING


def _require_new(note: Note, folder: Path) -> None:
    """Kaggle answers 403 for a kernel that is not there, and for other reasons: what was pushed must be gone."""
    try:
        known = Note.read(folder, note.order.run)
    except (MissingInput, BadData):
        return
    if known.version and known.ref == note.ref:
        raise UsageError(
            f"Kaggle does not show {note.url}, which was pushed from here as version {known.version}: if you have "
            f"removed it there, {AGAIN}; else try again later"
        )
