"""Names of runs in messages: which one may be meant, and not too many of them."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import printable

MOST = 8


def absent(models: Path, name: str, known: Sequence[str], pointer: Path | None) -> str:
    """The message for a run that is not in `models`; `pointer` is the file that named it, if one did."""
    if not known:
        return f"there is no run {name} in {models}, and no other: run `python -m pipeline.train` first"
    if pointer is not None:
        return (
            f"{pointer} names run {name}, which is not there: was it renamed or removed?  "
            f"Name one with --run; there is {few(known)}"
        )
    if meant := like(name, known):
        return f"there is no run {name} in {models}: did you mean {few(meant)}?"
    return f"there is no run {name} in {models}: there is {few(known)} (`python -m pipeline.train` makes one)"


def like(name: str, known: Sequence[str]) -> list[str]:
    """Of the `known` names those that begin with `name`, else those that are spelled nearly so."""
    begun = [other for other in known if other.lower().startswith(name.lower())]
    return begun or difflib.get_close_matches(name, known)


def few(names: Sequence[str]) -> str:
    """ "A, B and 5 more"."""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(printable, names[:MOST])) + more
