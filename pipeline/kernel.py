"""Beside the stages: the same pipeline on Kaggle's GPU, whose run and CSV come back as if train and predict made them.

    python -m pipeline.kernel push --preset best

Packs the project into a script kernel of yours, pushes it, waits, and fetches what it puts out.  The same command
again goes on where the last one ended: what Kaggle has already is not pushed twice.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline import cli, commands
from pipeline.config import Paths
from pipeline.console import BYTES, Meter, duration
from pipeline.errors import BadData, Log, PipelineError
from pipeline.kaggle_api import kernels
from pipeline.kaggle_api.client import Kaggle
from pipeline.kernels import outputs, packing, taken
from pipeline.kernels.order import AGAIN, Note, Order, default_run
from pipeline.kernels.packing import Parcel
from pipeline.kernels.waiting import Clock, wait_for
from pipeline.recipes import PRESETS
from pipeline.store import atomic, runs
from pipeline.store.runs import Run

UNKNOWN_USER = "YOUR-KAGGLE-NAME"

WAITING = (  # the options of what waits for a kernel and fetches its run
    cli.wait(43200, "the kernel's end"),
    click.option("--poll", metavar="SECONDS", type=cli.Finite(min=0.1), default=15, show_default=True,
                 help="Between two looks at Kaggle."),
    cli.timeout, cli.models, cli.submissions, cli.force,
)  # fmt: skip


def push(
    order: Order, paths: Paths, kaggle: Kaggle, log: Log, *, force: bool = False, clock: Clock | None = None
) -> Run | None:
    """Have the order carried out on Kaggle and fetch its run, or go on with that, or find it here.

    With a deadline of 0 what was just pushed is not waited for: None.

    Raises:
        UsageError: a kernel, a run or a CSV of that name is another one, or the kernel is not shown any more, and not
            `force`; Kaggle knows no such competition; or the source is too large.
        AccessDenied: the credentials, or the competition's rules (see pipeline.errors).
        PipelineError: Kaggle refused the kernel, or the kernel failed; its log's end is said.
        NetworkError: Kaggle does not answer, or the kernel did not end in time.
        BadData: its output is not what was ordered.
    """
    parcel, folder = packing.pack(order), paths.kernels / order.run
    with atomic.lock(folder):
        if not force and (run := outputs.here(order, paths)) is not None:
            log(f"kernel: run {run.name} and its CSV are here already, nothing to do")
            runs.point_latest(paths.models, run.name)
            return run
        clock = clock or Clock()
        note, pushed = _sent(order, parcel, folder, kaggle, force, log)
        note.write(paths.kernels)
        if pushed and not clock.deadline:
            log(f"kernel: not waiting; later: {_fetching(note, paths, force)}")
            return None
        return _bring(note, paths, kaggle, log, clock, force)


def fetch(
    name: str | None, paths: Paths, kaggle: Kaggle, log: Log, *, force: bool = False, clock: Clock | None = None
) -> Run:
    """Wait for a kernel that was pushed from here and fetch its run; by default the one that was pushed last.

    Raises:
        MissingInput: no such kernel was pushed.
        Others as `push`.
    """
    note = Note.read(paths.kernels, name)
    with atomic.lock(paths.kernels / note.order.run):
        if not force and (run := outputs.here(note.order, paths)) is not None:
            log(f"kernel: run {run.name} and its CSV are here already, nothing to do")
            runs.point_latest(paths.models, run.name)
            return run
        return _bring(note, paths, kaggle, log, clock or Clock(), force)


def prepare(order: Order, paths: Paths, kaggle: Kaggle, log: Log) -> Path:
    """Write what `push` would send, and send nothing; the folder.  Kaggle is asked for the user's name at most."""
    name = order.kernel  # a name that Kaggle would not take is refused before it is asked
    parcel, folder = packing.pack(order), paths.kernels / order.run
    try:
        user = kernels.find(kaggle, name).user
    except PipelineError as error:
        user = UNKNOWN_USER
        log(f"kernel: your name on Kaggle is not known ({error})")
        log(f"kernel: to push by hand, put it in the place of {UNKNOWN_USER}")
    with atomic.lock(folder):
        packing.write(folder, order, parcel, user)
    _introduce(order, parcel, folder, user, log)
    log(f"kernel: nothing was sent; by hand: kaggle kernels push -p {folder}")
    return folder


def _sent(order: Order, parcel: Parcel, folder: Path, kaggle: Kaggle, force: bool, log: Log) -> tuple[Note, bool]:
    """Push it, unless Kaggle has it already; what Kaggle has now, and whether it was pushed."""
    found = kernels.find(kaggle, order.kernel)
    note = Note(order, found.user, found.version)
    if taken.runs(note, parcel, found, kaggle) if force else taken.has(note, parcel, found, folder.parent, log):
        log(f"kernel: {note.ref} has this order already, as version {found.version}")
        return note, False
    packing.write(folder, order, parcel, found.user)
    _introduce(order, parcel, folder, found.user, log)
    kaggle.files(order.competition)  # a kernel without the competition's files would fail after its wait in the queue
    Note(order, found.user, version=0).write(folder.parent)  # whatever the answer, fetch takes the newest version
    pushed = kernels.push(kaggle, folder, note.ref, order.competition)
    log(f"kernel: Kaggle took it as version {pushed.version}: {note.url}")
    return Note(order, found.user, pushed.version), True


def _introduce(order: Order, parcel: Parcel, folder: Path, user: str, log: Log) -> None:
    machine = (order.accelerator or "a GPU") if order.gpu else "no GPU"
    internet = "with" if order.internet else "without"
    log(f"kernel: {user}/{order.kernel}, private, {machine}, {internet} internet, files of {order.competition}")
    log(f"kernel: {parcel.files} files of the project, {len(parcel.source) / 1e3:.0f} kB as {folder / packing.MAIN}")
    log(f"kernel: it trains run {order.run}: {' '.join(commands.arguments(order.config))}")


def _bring(note: Note, paths: Paths, kaggle: Kaggle, log: Log, clock: Clock, force: bool) -> Run:
    """Wait for the kernel, fetch its output, verify it, and put it where the stages look for it."""
    order, later = note.order, _fetching(note, paths, force)
    try:
        wait_for(note, kaggle, log, clock, later)
        with outputs.incoming(paths.kernels / order.run) as place:
            _output(note, place, kaggle, log)
            run = outputs.verify(order, place)
            outputs.publish(order, place, paths)
    except KeyboardInterrupt:
        log(f"kernel: {note.ref} stays at Kaggle; later: {later}")
        raise
    csv = outputs.csv_of(order, paths.submissions)
    result = run.result
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    log(f"kernel: {epochs} on {result.device}, {duration(result.seconds)}, "
        f"test {result.test_accuracy:.2f} % ({result.test_rows:,} images, test_batch)")  # fmt: skip
    log(f"kernel: {paths.models / order.run} and {csv} are here, verified")
    commands.announce(commands.command("check", order.competition, paths, "--csv", str(csv)), log, os.environ)
    return Run.open(paths.models, order.run)


def _fetching(note: Note, paths: Paths, force: bool) -> str:
    """The command that goes on waiting; without --force it would be content with a run that is here."""
    more = ("--run", note.order.run, *(("--force",) if force else ()))
    return commands.command("kernel fetch", note.order.competition, paths, *more)


def _output(note: Note, place: Path, kaggle: Kaggle, log: Log) -> None:
    """Bring what the kernel has put out into `place`."""
    wanted = outputs.wanted(note.order)
    with Meter(f"kernel: {note.order.run}", None, BYTES, log) as meter:
        came = kernels.output(kaggle, note.ref, note.version, wanted, place, meter.update)
    if missing := [name for name in wanted if name not in came.files]:
        raise BadData(f"{note.ref} has put out no {missing[0]}: see {note.url}, then {AGAIN}")


def _waiting(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(WAITING):
        function = option(function)
    return function


@cli.stage_command(
    """
python -m pipeline.kernel push                           the paper's network and recipe on Kaggle's GPU
python -m pipeline.kernel push --preset best --seed 1    any recipe of train
python -m pipeline.kernel push --dry-run                 look at what would be sent, in data/kernels/RUN
python -m pipeline.kernel push --wait 0                  push, and fetch later
python -m pipeline.kernel push --internet --force        anew, and install there what the machine lacks
""",
    cli.RECIPE_GROUPS,
)
@cli.competition
@cli.recipe_options
@cli.run_name("The run's name, and with hyphens the kernel's; by default made from the options.")
@click.option("--internet", is_flag=True, help="Give the kernel internet, which many competitions forbid.")
@click.option("--accelerator", metavar="NAME",
              help="As Kaggle spells it, NvidiaTeslaT4 for example; none for the CPU; by default a GPU of Kaggle's "
              "choice.")  # fmt: skip
@_waiting
@click.option("--dry-run", is_flag=True, help="Write into data/kernels/RUN what would be sent, and stop.")
def push_command(
    slug: str, preset: str, run_name: str | None, internet: bool, accelerator: str | None, wait: float,
    poll: float, timeout: float, models: Path, submissions: Path, force: bool, dry_run: bool, **recipe: Any,
) -> None:  # fmt: skip
    """Train and predict on Kaggle's machine, and fetch the run and its CSV.

    The kernel is private.  Ctrl-C leaves it running; the same command again goes on waiting.
    """
    config = cli.recipe(preset, recipe)
    if config.model not in [known.model for known in PRESETS.values()]:
        from pipeline.model.summary import check_parameter_limit  # noqa: PLC0415 - torch takes seconds

        check_parameter_limit(config.model)
    run = runs.check_name(run_name or default_run(slug, config))
    order = Order(slug, run, config, internet, accelerator)
    paths, kaggle = Paths(models=models, submissions=submissions), Kaggle(os.environ, timeout, log=cli.log)
    if dry_run:
        prepare(order, paths, kaggle, cli.log)
    else:
        push(order, paths, kaggle, cli.log, force=force, clock=Clock(wait, poll))


@cli.stage_command("""
python -m pipeline.kernel fetch                      the kernel that was pushed last
python -m pipeline.kernel fetch --run RUN --wait 0   that run's, if it has ended
""")
@cli.run_name("The run whose kernel was pushed; by default the last.")
@_waiting
def fetch_command(
    run_name: str | None, wait: float, poll: float, timeout: float, models: Path, submissions: Path, force: bool
) -> None:
    """Wait for a kernel that was pushed from here, and fetch its run and its CSV."""
    paths, kaggle = Paths(models=models, submissions=submissions), Kaggle(os.environ, timeout, log=cli.log)
    fetch(run_name, paths, kaggle, cli.log, force=force, clock=Clock(wait, poll))


command = click.Group(
    "kernel", {"push": push_command, "fetch": fetch_command}, help=__doc__, short_help="Kaggle's GPU.",
    no_args_is_help=False,  # an error like any other
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "kernel", argv)


if __name__ == "__main__":
    sys.exit(main())
