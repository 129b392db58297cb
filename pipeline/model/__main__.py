"""python -m pipeline.model [--model NAME] [--json]: a model's layers, parameters, MACs and memory."""

import json
import sys
from functools import partial

import click

from pipeline import cli
from pipeline.config import PARAMETER_LIMIT
from pipeline.console import table
from pipeline.recipes import MODELS


@cli.stage_command(
    examples="""
python -m pipeline.model                       the paper's model
python -m pipeline.model --model resnet18      another one
python -m pipeline.model --json                for programs
"""
)
@click.option("--model", "name", type=click.Choice(list(MODELS)), default="paper", show_default=True,
              help="The model.")  # fmt: skip
@cli.as_json
def command(name: str, as_json: bool) -> None:
    """Print a model's layers, parameters, multiply-accumulates (MACs) and memory."""
    from pipeline.model.summary import HEAD, summarise  # noqa: PLC0415 - torch takes seconds; --help need not wait

    summary = summarise(MODELS[name])
    if as_json:
        cli.log(json.dumps(summary.to_dict(), indent=2))
        return
    cli.log("\n".join([*table(HEAD, summary.rows, left=(0, 1, 2)), ""]))
    within = "within" if summary.trainable <= PARAMETER_LIMIT else "OVER"
    cli.log(f"parameters        {summary.parameters:>12,}")
    cli.log(f"trainable         {summary.trainable:>12,}   {within} the limit of {PARAMETER_LIMIT:,}")
    cli.log(f"MACs              {summary.macs / 1e6:>11.1f}M   an image")
    for what, size in summary.memory.items():
        cli.log(f"{what:<18}{size:>12.2f} MB")


main = partial(cli.run, command, "model")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
