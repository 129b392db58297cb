"""One look for all figures: drawn by matplotlib, once as SVG in the page and once as PNG beside it.

In the page colours follow the reader's scheme: each colour below is drawn as it is, and in the SVG replaced by the
CSS variable of its name, which report.css gives a light and a dark value.  Text stays text, so that it can be
selected and found, and is never smaller than it was drawn: a figure is WIDTH wide at least.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.figure import Figure

from pipeline.gap import lettering
from pipeline.gap.contact_sheets import HIDDEN, LOCAL

INK, MUTED, GRID, TRAIN, PRIVATE = "#1c2128", "#59636e", "#d1d9e0", "#0f766e", "#7e22ce"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", LOCAL: "local", HIDDEN: "hidden", TRAIN: "train", PRIVATE: "private",
}  # fmt: skip
WIDTH = 340  # CSS pixels: what the narrowest of today's phones have beside the page's margins
PNG_SCALE = 2.5  # pixels of the PNG for one CSS pixel

STYLE: Any = {  # matplotlib declares its keys from 3.11 on, as a type of its own
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "figure.dpi": 72,  # so that a point is a CSS pixel
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Drawn:
    """A figure, the name of its files, its heading, and what it shows, in words."""

    name: str
    title: str
    alt: str
    figure: Figure


@contextmanager
def style() -> Iterator[None]:
    """Draw in this look."""
    with matplotlib.rc_context(STYLE), lettering.plain():
        yield


def blank(height: float = 240) -> Figure:
    """An empty figure, `height` CSS pixels high."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def inline_svg(drawn: Drawn) -> str:
    """The figure as an <svg> element that can stand in a page beside others."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": drawn.name}):
        drawn.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{drawn.name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{drawn.name}-", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    opening = f'<svg role="img" aria-label={quoteattr(drawn.alt)} viewBox="{_view_box(text)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def _view_box(svg: str) -> str:
    found = re.search(r'viewBox="([^"]+)"', svg)
    assert found is not None  # matplotlib always writes one
    return found[1]


def write_png(drawn: Drawn, folder: Path) -> Path:
    """Write the figure as folder/NAME.png, on white.  That the folder appears complete is the caller's to see to."""
    path = folder / f"{drawn.name}.png"
    drawn.figure.axes[0].set_title(drawn.title, loc="left")  # in the page it is text above the figure
    drawn.figure.savefig(path, format="png", dpi=72 * PNG_SCALE, facecolor="white")
    return path
