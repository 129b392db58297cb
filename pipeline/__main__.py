"""`python -m pipeline` prints the map: there is no command for the whole, that is run_all.sh."""

import sys
from functools import partial

import pipeline
from pipeline import cli


@cli.stage_command("python -m pipeline    the map")
def command() -> None:
    """Print the map of the pipeline."""
    cli.log(pipeline.__doc__ or "")


main = partial(cli.run, command, "")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
