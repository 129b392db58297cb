"""The README's pictures, in .readme/: the top of a report as a browser shows it, and the published scores.

python tests/bench/readme_pictures.py data/models/RUN/report/index.html
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a benchmark is run by its path

import click
from PIL import Image

from pipeline.config import DEFAULT_COMPETITION, KNOWN_COMPETITIONS
from pipeline.reporting import figures
from pipeline.reporting.figures import Point
from tests.browser import chromium, looked_at, opened
from tests.gap.cases import PAIRS

PAPER = (94.3, 83.44)
FOLDER = Path(__file__).parents[2] / ".readme"
WIDTH, HEIGHT = 1160, 870  # px of the report that are shown: its result and the curves
COLOURS = 224  # which look like all of them, in a third of the file


@click.command()
@click.argument("page", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(page: Path) -> None:
    """Draw both pictures; PAGE is a report."""
    FOLDER.mkdir(exist_ok=True)
    _save(_report(page), FOLDER / "report.png")
    _save(_gap(), FOLDER / "gap.png")


def _report(page: Path) -> Image.Image:
    program = chromium()
    if program is None:
        raise click.ClickException("no Chromium: set $CHROMIUM or install one")
    with tempfile.TemporaryDirectory() as folder, opened(program) as window:
        looked_at(window, page, WIDTH, "light", picture=Path(folder, "page.png"))
        first = min(Path(folder).iterdir())  # a tall page comes in pieces
        with Image.open(first) as picture:
            return picture.convert("RGB").crop((0, 0, WIDTH, HEIGHT))


def _gap() -> Image.Image:
    line = KNOWN_COMPETITIONS[DEFAULT_COMPETITION].line
    with figures.style(), tempfile.TemporaryDirectory() as folder:
        drawn = figures.draw_scores([_point(*pair) for pair in (*PAIRS, PAPER)], line)[1]
        drawn.figure.axes[0].annotate(
            "the paper", PAPER, (12, -18), textcoords="offset points", arrowprops={"arrowstyle": "-"}
        )
        with Image.open(figures.write_png(drawn, Path(folder))) as picture:
            return picture.convert("RGB")


def _point(local: float, public: float) -> Point:
    return Point(local, None, None, None, public, None)


def _save(picture: Image.Image, path: Path) -> None:
    picture.quantize(COLOURS).save(path, optimize=True)
    click.echo(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    command()
