"""A package's README, scripts and lists, from the templates beside this."""

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from pipeline import cli_recipes, progress
from pipeline.packing import settings
from pipeline.packing.lineage import Made
from pipeline.store.sidecar import Measure, Sidecar

TEMPLATES = Path(__file__).parent / "templates"
PAGES = ("README.md", "entry_points.md", "prepare_data.py", "train.py", "predict.py")

MEASURES: Mapping[Measure, str] = {  # against a shift of the hidden images, for people
    "norms": "the batch normalisations take the hidden images' statistics",
    "undo": "a mistake in how the hidden images' pixels are stored is undone",
    "prior": "the probabilities are corrected for classes that come more often among the hidden images",
}


@dataclass(frozen=True)
class Subject:
    """What a package is about."""

    name: str  # the zip's, and the folder's in it
    csv: str  # the submitted CSV's file name
    sidecar: Sidecar
    made: tuple[Made, ...]  # in the order of training; those that predicted the CSV, and those that taught them
    raw: Mapping[str, str]  # the competition's files: name -> sha256; empty: not here any more
    requirements: Sequence[str]
    machine: str  # that makes the package, for people

    @property
    def names(self) -> list[str]:
        """The runs that predicted the CSV."""
        return self.sidecar.run.split("+")

    @property
    def again(self) -> str:
        """What the name of a run ends in when it is trained again: no run here has such a name."""
        names, ending = {made.name for made in self.made}, "-again"
        while any(f"{name}{ending}" in names for name in names):
            ending += "-again"
        return ending


def render(subject: Subject) -> dict[str, bytes]:
    """Name -> content of what is written for this package: pages, SETTINGS.json and requirements.txt.

    Raises:
        BadData: a run's recipe is of another version of the pipeline.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    # Of texts: the same in Python, if no character becomes two escapes.
    environment.filters["python"] = functools.partial(json.dumps, ensure_ascii=False)
    environment.filters["shell"] = shlex.quote
    environment.filters["duration"] = progress.duration
    values: dict[str, Any] = {
        "subject": subject,
        "recipes": {made.name: cli_recipes.arguments(made.run.card.config) for made in subject.made},
        "options": {made.name: _options(made, subject.again) for made in subject.made},
        "folders": settings.DEFAULTS,
        "measures": MEASURES,
    }
    pages = {name: environment.get_template(f"{name}.j2").render(values).encode() for name in PAGES}
    return {
        **pages,
        settings.NAME: (json.dumps(settings.DEFAULTS, indent=2) + "\n").encode(),
        "requirements.txt": "\n".join([*subject.requirements, ""]).encode(),
    }


def _options(made: Made, again: str) -> list[str]:
    """train's options that train the run again; of its teachers those that are trained again before it."""
    given = ["--competition", made.run.card.competition, *cli_recipes.arguments(made.run.card.config)]
    if made.teachers:
        given += ["--teacher", *(f"{teacher.name}{again if teacher.here else ''}" for teacher in made.teachers)]
    if not made.run.result.submittable:  # a teacher may be
        given.append("--baseline")
    return given
