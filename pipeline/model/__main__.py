"""python -m pipeline.model [--model NAME] [--verbose] [--json]: a model's parameters, MACs, memory and layers."""

import json
import sys
from functools import partial

import click

from pipeline import cli, console
from pipeline.config import PARAMETER_LIMIT
from pipeline.recipes import MODELS


@cli.stage_command(
    examples="""
python -m pipeline.model                       the paper's model
python -m pipeline.model --model resnet18      another one
python -m pipeline.model --verbose             and its layers
python -m pipeline.model --json                for programs
"""
)
@click.option("--model", "name", type=click.Choice(list(MODELS)), default="paper", show_default=True,
              help="The model.")  # fmt: skip
@cli.verbose
@cli.as_json
def command(name: str, verbose: bool, as_json: bool) -> None:
    """Print a model's parameters, multiply-accumulates (MACs) and memory."""
    with console.working("loading PyTorch"):
        from pipeline.model.summary import HEAD, summarise  # noqa: PLC0415 - --help need not wait

    summary = summarise(MODELS[name])
    if as_json:
        console.show(json.dumps(summary.to_dict(), indent=2))
        return
    within = "within" if summary.trainable <= PARAMETER_LIMIT else "OVER"
    sizes = ", ".join(f"{what} {size:.2f}" for what, size in summary.memory.items())
    console.show(f"model {name}: {summary.parameters:,} parameters, {summary.macs / 1e6:,.1f}M MACs per image")
    console.show(f"trainable {summary.trainable:,}: {within} the limit of {PARAMETER_LIMIT:,}")
    console.show(f"memory in MB: {sizes}")
    if verbose:
        console.show("\n".join(["", *console.table(HEAD, summary.rows, left=(0, 1, 2))]))


main = partial(cli.run, command, "model")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
