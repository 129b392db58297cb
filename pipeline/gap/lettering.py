"""Class names in pictures: they come from the download, so they may be long, in any script, or full of signs."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.errors import printable

LONGEST = 12  # characters that an axis has room for


def short(names: Sequence[str]) -> list[str]:
    """The names, cut to what fits beside an axis."""
    return [printable(name, LONGEST) for name in names]


@contextmanager
def plain() -> Iterator[None]:
    """Within the block matplotlib takes text as it is, without formulas between dollar signs."""
    import matplotlib as mpl  # noqa: PLC0415 - a second that most commands need not take

    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        # In a page the reader's fonts have it; in a PNG a box says enough.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield
