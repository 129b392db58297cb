"""`python -m pipeline` prints the map: there is no command for the whole, that is run_all.sh."""

import sys
from collections.abc import Sequence

import pipeline
from pipeline import cli


@cli.stage_command("python -m pipeline    the map")
def command() -> None:
    """Print the map of the pipeline."""
    cli.log(pipeline.__doc__ or "")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "", argv)


if __name__ == "__main__":
    sys.exit(main())
