"""The page: report.html.j2 filled with what is known, with everything in it, so that one file is all of it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pipeline.gap.contact_sheets import Sheet, Tile
from pipeline.model.summary import Summary
from pipeline.reporting import tables, theme
from pipeline.reporting.material import Material
from pipeline.reporting.theme import Drawn
from pipeline.store.evidence import Evidence

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figures:
    """The figures and sheets of each section; empty where there is nothing to draw."""

    training: Sequence[Drawn] = ()
    answers: Sequence[Drawn] = ()  # on labelled images
    hidden: Sequence[Drawn] = ()
    scores: Sequence[Drawn] = ()
    sheets: Mapping[str, Sheet] = field(default_factory=dict)  # by name

    def all(self) -> list[Drawn]:
        """All figures, in the order of the page."""
        return [*self.training, *self.answers, *self.scores, *self.hidden]


def render(
    known: Material, summary: Summary, figures: Figures, reproduce: Sequence[str], now: datetime, newest: int,
    marks: str,
) -> str:  # fmt: skip
    """The page as HTML.

    Args:
        known: the run.
        summary: its network's costs.
        figures: what was drawn of it.
        reproduce: the commands that make the run and its CSV again.
        now: the time that the page tells, UTC.
        newest: how many submissions the table shows.
        marks: HTML for its head, by which it is known again.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    environment.filters |= {"svg": _svg, "uri": _uri, "alt": _alt, "code": _code}
    judged = known.judged
    return environment.get_template("report.html.j2").render(
        known=known,
        marks=Markup(marks),
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        now=now.strftime("%Y-%m-%d %H:%M UTC"),
        cards=tables.result_row(known, summary),
        figures=figures,
        network=tables.network(summary),
        memory=tables.memory(summary),
        layers=tables.layers(summary),
        submissions=tables.submissions(known.entries, known.foretold, newest) if known.entries else None,
        methods=tables.methods(known),
        accuracy=_accuracy(known.evidence),
        diagnosis=judged.diagnosis if judged else None,
        doubts=list(judged.forecast.doubts) if judged else [],
        advice=[str(step) for step in judged.advice] if judged else [],
        recipe=tables.recipe(known.card.config),
        reproduce=reproduce,
    )


def _accuracy(evidence: Evidence | None) -> float | None:
    """Of the answers on test_batch: one view or several, of one network or several, as for the CSV."""
    return None if evidence is None else float((evidence.test.labels == evidence.test.known_truth).mean())


def _unbroken(value: Any) -> Any:
    """A number and its per cent sign stay on one line."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _svg(drawn: Drawn) -> Any:
    return Markup(theme.inline_svg(drawn))


def _uri(image: NDArray[Any]) -> str:
    """The image (32, 32, 3) as a PNG in a data: address; the browser enlarges it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _code(text: str) -> Markup:
    """What stands in backticks as <code>."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if k % 2 else part for k, part in enumerate(parts))


def _alt(tile: Tile) -> str:
    return ", ".join(tile.lines)
