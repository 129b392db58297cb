"""What the stages' command lines share: common options, exit codes, one line an error."""

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

try:
    import click
except ModuleNotFoundError:
    sys.exit("error: click is not installed: run `./run_all.sh --setup`, then `source .venv/bin/activate`")

from pipeline.config import DEFAULT_COMPETITION, Paths, check_slug
from pipeline.errors import INTERRUPTED, PipelineError, UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

_DEBUG = "pipeline.debug"


def run(command: click.Command, module: str, argv: Sequence[str] | None) -> int:
    """Run a stage's command line and return its exit code (see pipeline.errors).

    Errors print one line on stderr; `--debug` prints the traceback too.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Set, not inherited: a script's background commands inherit an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    context: click.Context | None = None
    try:
        with command.make_context(f"python -m pipeline.{module}", arguments) as context:
            command.invoke(context)
        return 0
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.ClickException as error:
        return _fail(context, f"{error.format_message()} (--help shows the options)", UsageError.exit_code)
    except PipelineError as error:
        return _fail(context, str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail(context, "interrupted; run the same command again to go on", INTERRUPTED)
    except OSError as error:
        return _fail(context, f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    except MemoryError:
        return _fail(context, "out of memory: close other programs, or lower --batch-size", 1)


def spread(arguments: Sequence[str], option: str) -> list[str]:
    """["--run", "A", "B"] -> ["--run", "A", "--run", "B"], for a command without positional arguments.

    Click's options take one value each time; what follows up to the next option belongs to `option` here.
    """
    result: list[str] = []
    inside = False
    for k, argument in enumerate(arguments):
        if argument.startswith("-"):
            inside = argument == option or argument.startswith(f"{option}=")
        elif inside and arguments[k - 1] != option:
            result.append(option)
        result.append(argument)
    return result


def _fail(context: click.Context | None, message: str, code: int) -> int:
    if context is not None and context.meta.get(_DEBUG):
        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    return code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say(message: str) -> None:
    """Tell the user something, on stdout, at once."""
    click.echo(message)
    sys.stdout.flush()


# --- options: one spelling, one help text, in every stage ---------------------------------------------------


def check_slug_option(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Click callback: the slug, checked."""
    return None if value is None else check_slug(value)


def _folder(flag: str, default: Path, what: str) -> Callable[[Command], Command]:
    return click.option(
        flag, type=click.Path(path_type=Path, file_okay=False), default=default, show_default=True, help=what
    )


competition = click.option(
    "--competition", "slug", metavar="SLUG", envvar="PIPELINE_COMPETITION", default=DEFAULT_COMPETITION,
    show_default=True, callback=check_slug_option, help="As in its URL; or $PIPELINE_COMPETITION.",
)  # fmt: skip
raw = _folder("--raw", Paths.raw, "Folder of the downloads.")
processed = _folder("--processed", Paths.processed, "Folder of the checked arrays.")
models = _folder("--models", Paths.models, "Folder of the runs.")
submissions = _folder("--submissions", Paths.submissions, "Folder of the CSVs and the ledger.")
force = click.option("--force", is_flag=True, help="Redo it even if the output is complete.")
device = click.option(
    "--device", type=click.Choice(["auto", "cuda", "mps", "cpu"]), default="auto", show_default=True,
    help="auto takes CUDA when there is one, else MPS, else the CPU.",
)  # fmt: skip
timeout = click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=1), default=60.0, show_default=True,
    help="Wall-clock limit of each answer from Kaggle; of a download, without a new byte.",
)  # fmt: skip


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[_DEBUG] = value


debug = click.option(
    "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_remember_debug,
    help="Show the traceback of an error.",
)  # fmt: skip


def stage_command(examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """A stage's click command, with `--help` that ends in `examples`, and `--debug`."""
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines())

    def decorate(function: Callable[..., None]) -> click.Command:
        return click.command(
            epilog=epilog, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
        )(debug(function))

    return decorate
