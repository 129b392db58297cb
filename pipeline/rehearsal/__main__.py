"""Run any command against a mock Kaggle server: `python -m pipeline.rehearsal -- COMMAND`.

Offline and without credentials; the `kaggle` client is the official one.  Submissions, scores and the daily
limit are remembered below data/rehearsal, so the next rehearsal goes on where this one ended.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

import click

from pipeline import cli, commands, console
from pipeline.errors import INTERRUPTED, UsageError
from pipeline.rehearsal import digits
from pipeline.rehearsal.mock import mock_kaggle, slug_of

STATES = Path("data/rehearsal")
PATIENCE = 30.0  # seconds that an interrupted command has to end by itself

EXAMPLES = f"""
python -m pipeline.rehearsal -- ./run_all.sh --preset rehearsal --submit
python -m pipeline.rehearsal -- kaggle competitions submissions -c {digits.SLUG}
python -m pipeline.rehearsal --folder data/raw/SLUG --labels labels.csv -- python -m pipeline.download
"""


@cli.stage_command(EXAMPLES)
@click.option(
    "--folder", metavar="FOLDER", type=cli.FOLDER,
    help="Serve these files, laid out as the competition's download is, under the slug rehearsal-NAME; by default an "
    f"embedded competition of 1,797 handwritten digits, {digits.SLUG}.",
)  # fmt: skip
@click.option(
    "--labels", metavar="CSV", type=cli.FILE,
    help="CSV ID,Labels that scores submissions to --folder; without it they get no score.",
)  # fmt: skip
@click.option(
    "--state", metavar="FOLDER", type=cli.FOLDER,
    help=f"Folder of the server's state; by default {STATES}/SLUG.",
)  # fmt: skip
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def rehearse(folder: Path | None, labels: Path | None, state: Path | None, command: tuple[str, ...]) -> None:
    """Run COMMAND with a mock Kaggle server on 127.0.0.1; its exit code is COMMAND's.

    COMMAND finds the competition's slug in $PIPELINE_COMPETITION.
    """
    if not command:
        raise UsageError("no COMMAND to run: --help has examples")
    if labels is not None and folder is None:
        raise UsageError("--labels goes with --folder: the embedded digits have labels of their own")
    given = {"--folder": folder, "--labels": labels, "--state": state}
    options = [word for name, path in given.items() if path is not None for word in (name, str(path))]
    state = state or STATES / slug_of(folder)
    with ExitStack() as stack:
        with console.working("starting the mock Kaggle server"):
            kaggle = stack.enter_context(mock_kaggle(folder, state, labels=labels))
        served = f"mock Kaggle server on 127.0.0.1:{kaggle.port}, serving {kaggle.slug} from {kaggle.state.source}"
        console.log(f"rehearsal: {served}")
        if remembered := len(kaggle.state.received):
            console.log(f"rehearsal: submissions remembered in {state}: {remembered}")
        code = _run(command, {**kaggle.environment, commands.SERVED: shlex.join(options)})
    raise click.exceptions.Exit(code)


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command in the foreground; its exit code, or 128 + the signal that ended it."""
    try:
        child = subprocess.Popen(command, env=environment)
    except (FileNotFoundError, PermissionError) as error:
        raise UsageError(f"{command[0]} cannot be run ({error.strerror})") from None

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Ctrl-C in a terminal reaches the child as well: twice would be too often.
        if number == signal.SIGTERM or not _in_terminal():
            child.terminate()  # the stages take SIGTERM as Ctrl-C
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        try:
            child.wait(PATIENCE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()
            child.wait()
        return INTERRUPTED  # COMMAND has said so
    return code if code >= 0 else 128 - code


def _in_terminal() -> bool:
    """Whether Ctrl-C comes from a terminal."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no terminal, or stdin is closed or replaced
        return False


# Options after the command's name are the command's: the -- may be left out.
rehearse.context_settings["allow_interspersed_args"] = False


main = partial(cli.run, rehearse, "rehearsal")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
