"""The README's pictures, in .readme/: the top of a report as Chromium shows it, and the published scores.

python tests/bench/readme_pictures.py data/models/RUN/report/index.html
"""

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a benchmark is run by its path

import click
from PIL import Image

from pipeline.config import DEFAULT_COMPETITION, KNOWN_COMPETITIONS
from pipeline.reporting import figures
from pipeline.store.ledger import Entry
from tests.browser import chromium, opened
from tests.gap.cases import PAIRS

PAPER = (94.3, 83.44)
FOLDER = Path(__file__).parents[2] / ".readme"
WIDTH, HEIGHT = 1000, 780  # CSS pixels of the report that are shown: its scores, what to do next, its submissions
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
    with opened(program) as window:
        window.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        window.goto(page.resolve().as_uri())
        return Image.open(io.BytesIO(window.screenshot())).convert("RGB")


def _gap() -> Image.Image:
    """The published pairs as the report draws them, and the paper's gap, from its score up to the diagonal."""
    line = KNOWN_COMPETITIONS[DEFAULT_COMPETITION].line
    (picture,) = figures.scores([(_entry(*pair), None) for pair in (*PAIRS, PAPER)], line)
    picture.figure.set_figheight(385 / 72)  # its legend has one row
    local, public = PAPER
    with figures.style():
        axes = picture.figure.axes[0]
        axes.set_title("Everybody scores lower on Kaggle's test set", loc="left", fontsize=12)
        names = {"public": "published", "published line": "fit to six pairs"}
        for label in picture.figure.legends[0].get_texts():
            label.set_text(names.get(label.get_text(), label.get_text()))
        axes.annotate("", PAPER, (local, local), arrowprops={"arrowstyle": "<->", "color": figures.INK})
        text = f"the paper:\n{local:.1f}% holdout,\n{public:.1f}% Kaggle,\ngap {local - public:.1f} points"
        axes.text(local - 0.6, 86.6, text, ha="right", va="top", backgroundcolor="white", zorder=1.8)
    return Image.open(io.BytesIO(picture.png)).convert("RGB")


def _entry(local: float, public: float) -> Entry:
    return Entry(competition=DEFAULT_COMPETITION, ref=1, local_test=local, public=public, status="complete")


def _save(picture: Image.Image, path: Path) -> None:
    picture.quantize(COLOURS).save(path, optimize=True)
    click.echo(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    command()
