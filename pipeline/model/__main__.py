"""python -m pipeline.model [--model NAME] [--json]: a model's layers, parameters, MACs and memory."""

import json
import sys
from collections.abc import Sequence

import click

from pipeline import cli
from pipeline.config import PARAMETER_LIMIT
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
    from pipeline.model.summary import summarise  # noqa: PLC0415 - torch takes seconds; --help need not wait

    summary = summarise(MODELS[name])
    if as_json:
        cli.log(json.dumps(summary.to_dict(), indent=2))
        return
    cli.log(f"{'layer':<28}{'kind':<20}{'output':<16}{'parameters':>12}")
    for layer in summary.layers:
        shape = " x ".join(str(size) for size in layer.output)
        parameters = f"{layer.parameters:,}" if layer.parameters else ""
        cli.log(f"{layer.name:<28}{layer.kind:<20}{shape:<16}{parameters:>12}".rstrip())
    within = "within" if summary.trainable <= PARAMETER_LIMIT else "OVER"
    cli.log("")
    cli.log(f"parameters        {summary.parameters:>12,}")
    cli.log(f"trainable         {summary.trainable:>12,}   {within} the budget of {PARAMETER_LIMIT:,}")
    cli.log(f"MACs              {summary.macs / 1e6:>11.1f}M   an image")
    cli.log(f"input             {summary.input_mb:>12.2f} MB")
    cli.log(f"forward/backward  {summary.forward_backward_mb:>12.2f} MB")
    cli.log(f"parameters        {summary.parameters_mb:>12.2f} MB")
    cli.log(f"total             {summary.total_mb:>12.2f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "model", argv)


if __name__ == "__main__":
    sys.exit(main())
