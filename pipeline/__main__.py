"""The map of the pipeline; or, by `python -m pipeline train`, a stage as by its own module."""

import difflib
import re
import sys
from functools import partial
from importlib import import_module

import click

import pipeline
from pipeline import cli, console
from pipeline.errors import UsageError, printable

MAP = pipeline.__doc__ or ""


@cli.stage_command(
    """
python -m pipeline                  the map
python -m pipeline train --help     as python -m pipeline.train --help
"""
)
@click.argument("stage", required=False)
@click.argument("arguments", metavar="[OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def command(stage: str | None, arguments: tuple[str, ...]) -> None:
    """Print the map of the pipeline, or run one of its stages."""
    if stage is None:
        console.show(MAP)
        return
    name, stages = stage.removeprefix("pipeline."), re.findall(r"python -m pipeline\.(\w+)", MAP)
    if name not in stages:
        meant = "".join(f": did you mean {other}?" for other in difflib.get_close_matches(name, stages, n=1))
        raise UsageError(f"there is no stage {printable(stage)}{meant} (`python -m pipeline` lists the stages)")
    module = import_module(f"pipeline.{name}")
    if not hasattr(module, "main"):  # a package's command is its __main__
        module = import_module(f"pipeline.{name}.__main__")
    raise click.exceptions.Exit(module.main(arguments))


command.context_settings["allow_interspersed_args"] = False  # options after the stage are the stage's

main = partial(cli.run, command, "")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
