"""What the stages' command lines share: running a command, options, help in groups."""

import atexit
import errno
import gc
import io
import math
import os
import re
import shlex
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pipeline import commands, console, recipes
from pipeline.commands import BELONGS, COMPETITION, SCRIPT, TAUGHT, meant
from pipeline.config import DEFAULT_COMPETITION, Paths, check_slug
from pipeline.errors import EXIT_CODES, INTERRUPTED, PipelineError, UsageError, printable
from pipeline.recipes import MODELS, PRESETS, TrainConfig, flag
from pipeline.store import overview
from pipeline.store.cifar import is_download

Command = TypeVar("Command", bound=Callable[..., Any])

STOPPED = "interrupted; run the same command again{} to resume"
BUG = "internal error (bug): please report it with all the lines above"
FULL = "the disk is full ({}): free space, then run the same command again"
DENIED = "{}: change its permissions, or name another place (--help shows the options)"
IN_THE_WAY = "{}: a file is in place of a folder; move it away, or name another place"
UNABLE = "{}: the file system there cannot do that; name another place (--help shows the options)"
ADVICE = {  # by the system's error
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), DENIED),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), IN_THE_WAY),
    **dict.fromkeys((errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EXDEV, errno.EBUSY), UNABLE),
}


# --- running a command ----------------------------------------------------------------------------------------


def run(command: click.Command, module: str, argv: Sequence[str] | None = None) -> int:
    """Run a stage's command line and return its exit code (see pipeline.errors).

    Errors print one line on stderr; `--debug` adds the traceback, which a bug always prints.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    atexit.register(gc.freeze)  # else Python searches all of PyTorch for garbage before it exits, for seconds
    # Not inherited: background commands of a script ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        # A copy: click empties it.
        with command.make_context(f"python -m pipeline.{module}".rstrip("."), list(arguments)) as context:
            _require_current_folder()
            command.invoke(context)
        return 0
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except BrokenPipeError:
        return _unread()
    except (Exception, KeyboardInterrupt) as error:
        message, code = _told(error, module == "train" and "--force" in arguments)
        return _fail(message, code, message == BUG or "--debug" in arguments)


def _told(error: BaseException, force: bool) -> tuple[str, int]:
    """The message and the exit code for an error; `force`: the same command would start over."""
    match error:
        case KeyboardInterrupt():
            return str(error) or STOPPED.format(" without --force" * force), INTERRUPTED
        case click.ClickException():
            return f"{error.format_message()} (--help shows the options)", UsageError.exit_code
        case PipelineError():
            return str(error), error.exit_code
        case OSError():
            reason = error.strerror or str(next(iter(error.args), type(error).__name__))
            full = re.fullmatch(r"\d+ requested and \d+ written", reason)  # numpy's message, without errno
            advice = FULL if full else ADVICE.get(error.errno or 0, "{}")
            # Of two files the second is the target.
            place = error.filename2 or error.filename or "the system"
            return f"{place}: {advice.format(reason)}", PipelineError.exit_code
        case MemoryError():
            return "out of memory: close other programs, or lower --batch-size", PipelineError.exit_code
        case _:
            return BUG, PipelineError.exit_code


def _fail(message: str, code: int, with_traceback: bool) -> int:
    try:
        if with_traceback:
            console.log(traceback.format_exc().rstrip())
        lines = message.split("\n  ")  # a lone newline belongs to quoted text
        console.log("error: " + "\n  ".join(printable(line, 10 * len(line)) for line in lines))
    except OSError:  # stderr is closed, or the disk is full
        _unread()
    return code


def _open_streams() -> None:
    """Open closed streams (`command >&-`), else the next opened file would become stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal in Latin-1 lacks our ellipsis; stderr never fails
        sys.stdout.reconfigure(errors="backslashreplace")


def _require_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder was removed: change to the project's folder, and try again") from None


def _unread() -> int:
    """End silently after a closed pipe (`command | head`), as other programs do."""
    with suppress(OSError, ValueError):  # drop what is buffered
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return 1


def announce(stage: str, slug: str, paths: Paths, *options: str) -> None:
    """Show the next command, unless a script runs it."""
    if SCRIPT not in os.environ:
        console.show(f"next: {commands.command(stage, slug, paths, *options)}")


# --- options: one spelling, one help text, in every stage -----------------------------------------------------

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Finite(click.FloatRange):
    """A finite number: "nan" is in every range, and a limit of nan is never reached."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click, but refuse "nan" and "inf"."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def slug(text: str, **default: Any) -> Callable[[Command], Command]:
    """--competition; `text` is its help, `default` the source of its value."""
    return click.option(
        "--competition", "slug", metavar="SLUG", help=text,
        callback=lambda _context, _option, value: None if value is None else check_slug(value), **default,
    )  # fmt: skip


def csv(text: str) -> Callable[[Command], Command]:
    """--csv: an existing file; `text` is its help."""
    return click.option("--csv", metavar="CSV", type=FILE, help=text)


def run_name(text: str) -> Callable[[Command], Command]:
    """--run, once; `text` is its help."""
    return click.option("--run", "run_name", metavar="RUN", help=text)


def wait(seconds: int, what: str) -> Callable[[Command], Command]:
    """--wait for `what`, by default `seconds`."""
    return click.option("--wait", metavar="SECONDS", type=Finite(min=0), default=seconds, show_default=True,
                        help=f"How long to wait for {what}.")  # fmt: skip


def poll(seconds: int) -> Callable[[Command], Command]:
    """--poll, by default `seconds`."""
    return click.option("--poll", metavar="SECONDS", type=Finite(min=0.1), default=seconds, show_default=True,
                        help="Interval between two requests to Kaggle.")  # fmt: skip


def _folder(flag: str, default: Path, what: str) -> Callable[[Command], Command]:
    return click.option(flag, metavar="FOLDER", type=FOLDER, default=default, show_default=True, help=what)


_URL = "Last part of the competition's URL, or $PIPELINE_COMPETITION"
_SOURCE: dict[str, Any] = {"default": DEFAULT_COMPETITION, "show_default": True, "envvar": COMPETITION}
new_competition = slug(f"{_URL}.", **_SOURCE)  # for a command that needs no data
competition = slug(f"{_URL}; if only one competition has data, that one.", **_SOURCE)
raw = _folder("--raw", Paths.raw, "Folder of the downloads.")
processed = _folder("--processed", Paths.processed, "Folder of the checked arrays.")
models = _folder("--models", Paths.models, "Folder of the runs.")
submissions = _folder("--submissions", Paths.submissions, "Folder of the CSVs and the ledger.")
force = click.option(
    "--force", is_flag=True, help="Redo the step even if it is complete; files that you added are kept as NAME.bak."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
verbose = click.option("--verbose", is_flag=True, help="Also print the details.")
device = click.option(
    "--device", type=click.Choice(["auto", "cuda", "mps", "cpu"]), default="auto", show_default=True,
    help="Device; auto takes CUDA if available, else MPS, else the CPU.",
)  # fmt: skip
timeout = click.option("--timeout", metavar="SECONDS", type=Finite(min=1), default=60, show_default=True,
                       help="Longest wait for Kaggle's reply or new data.")  # fmt: skip


# --- the options of a recipe: one for each annotated field of TrainConfig -------------------------------------

OBVIOUS = (None, recipes.NON_NEGATIVE)  # ranges
RECIPE_GROUPS = {  # for the help of train and kernel push: first option of a group -> heading
    "--preset": "Recipe",
    "--validation": "Validation and length",
    "--optimizer": "Optimization",
    "--label-smoothing": "Regularization",
    "--crop-padding": "Augmentation",
    "--distillation-weight": "Distillation and pseudo-labels",
    "--run": "The run",
}


def recipe_options(command: Command) -> Command:
    """Give a click command --preset, --model and an option for each field; all but --preset default to None.

    The help of a field shows its value in preset `paper`, and others' if they differ.
    """
    for name, option in reversed(recipes.options().items()):
        command = click.option(
            f"{flag(name)}/--no-{flag(name)[2:]}" if option.kind is bool else flag(name),
            name,
            type=type_of(option),
            metavar={int: "N", float: "X"}.get(option.kind),
            default=None,
            show_default=_by_preset(name),
            help=option.help[:-1] + (f" ({option.allowed})." if option.allowed not in OBVIOUS else "."),
        )(command)
    command = click.option("--model", type=click.Choice(list(MODELS)), help="Model, instead of the preset's.")(command)
    return click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True,
                        help="Model and recipe; each option below changes one thing.")(command)  # fmt: skip


def _by_preset(field: str) -> str:
    """The default for the help, as "0.1; fast, best: 0.05"."""
    presets: dict[Any, list[str]] = {}
    for preset, config in PRESETS.items():  # `paper`, whose value stands alone, is the first
        presets.setdefault(getattr(config, field), []).append(preset)
    paper, *others = presets
    return "; ".join([str(paper), *(f"{', '.join(presets[value])}: {value}" for value in others)])


def type_of(option: recipes.Option) -> click.ParamType[Any]:
    """The click type of a field; the recipe checks the range."""
    choices = typing.get_args(option.kind)  # of a Literal
    return click.Choice(choices) if choices else click.types.convert_type(option.kind)


def recipe(preset: str, given: Mapping[str, Any], *, taught: bool = False) -> TrainConfig:
    """The preset's recipe with the `given` values (None: not given); UsageError for invalid ones.

    `taught`: with teachers.
    """
    config = PRESETS[preset].changed(given)
    changes = [name for name, value in given.items() if value is not None]
    for name, (other, values) in BELONGS.items():
        if name in changes and (present := getattr(config, other)) not in values:
            raise UsageError(f"{flag(name)} belongs to {flag(other)} {' or '.join(values)}, and this run has {present}")
    if not taught and (idle := [name for name in TAUGHT if name in changes]):
        raise UsageError(f"{flag(idle[0])} belongs to --teacher: name the teachers")
    return config


# --- the command itself -----------------------------------------------------------------------------------------


class StageCommand(click.Command):
    """A command whose help groups its options: `groups` maps the first option of each group to its heading."""

    groups: Mapping[str, str] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click; an option whose metavar ends in "..." takes several values: --run A B.

        Raises:
            UsageError: unknown option; suggests the command that was meant.
        """
        several = [name for option in self.params if str(option.metavar).endswith("...") for name in option.opts]
        try:
            return super().parse_args(ctx, spread(args, several))
        except click.NoSuchOption as error:
            known = [name for option in self._options(ctx) for name in (*option.opts, *option.secondary_opts)]
            words = [meant(arg, known) for arg in args]
            typed, better = next((pair for pair in zip(args, words, strict=True) if pair[0] != pair[1]), ("", ""))
            if not better:  # click's own suggestions are poor: --force for --workers
                raise click.NoSuchOption(error.option_name, ctx=ctx) from error
            unknown = typed.partition("=")[0]
            better = better.removesuffix(typed.removeprefix(unknown))
            if SCRIPT not in os.environ and "=" not in better:  # a script's user typed another command
                better = f"{ctx.command_path} {shlex.join(words)}"
            raise UsageError(f"there is no option {unknown}; try: {better}") from error

    def invoke(self, ctx: click.Context) -> Any:
        """As click, with the folders as `paths`; a stage that needs data defaults to the only competition with data."""
        folders = {field.name: ctx.params.pop(field.name) for field in fields(Paths) if field.name in ctx.params}
        paths = Paths(**folders)
        by_default = ctx.params.get("slug") and ctx.get_parameter_source("slug") == ParameterSource.DEFAULT
        if by_default and "processed" in folders:  # download and kernel push need no data
            ctx.params["slug"] = default_competition(paths)
        if folders:
            ctx.params["paths"] = paths
        return super().invoke(ctx)

    def _options(self, ctx: click.Context) -> list[click.Option]:
        return [param for param in self.get_params(ctx) if isinstance(param, click.Option)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group."""
        heading, sections = "Options", dict[str, list[tuple[str, str]]]()
        for option in self._options(ctx):
            heading = next((self.groups[name] for name in option.opts if name in self.groups), heading)
            if (record := option.get_help_record(ctx)) is not None:
                flags, text = record  # click puts a default that is a text between parentheses
                text = re.sub(r"(\[default: )\((.*)\)", r"\1\2", text).replace("x>=", "at least ")
                text = re.sub(r"([-.\d]+)<=x<=", r"at least \1 and at most ", text)
                sections.setdefault(heading, []).append((flags, text))
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def default_competition(paths: Paths) -> str:
    """The default competition, or else the only one with data."""
    found = overview.competitions(paths)
    if len(found) != 1 or DEFAULT_COMPETITION in found or is_download(paths.raw):
        return DEFAULT_COMPETITION
    (only,) = found
    console.log(f"no files for {DEFAULT_COMPETITION}; using {only}, the only competition found")
    return only


def spread(arguments: Sequence[str], several: Sequence[str]) -> list[str]:
    """["--run", "A", "B"] -> ["--run", "A", "--run", "B"], for the options `several`."""
    result: list[str] = []
    option = ""  # the current option
    for argument in arguments:
        if argument.startswith("-"):
            option = argument.partition("=")[0] if argument.partition("=")[0] in several else ""
        elif option and result[-1] != option:
            result.append(option)
        result.append(argument)
    return result


def stage_command(
    examples: str, groups: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """A stage's click command, with `--debug`, and a `--help` that ends in `examples` and the exit codes."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())

    def decorate(function: Callable[..., None]) -> click.Command:
        command = click.command(
            cls=StageCommand,
            epilog=f"\b\nExamples:\n{lines}\n\nExit codes: {codes}.",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )(function)
        command.groups = groups or {}
        debug = click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")
        command.params.append(debug)  # last but --help; `run` looks for it even if parsing fails
        return command

    return decorate
