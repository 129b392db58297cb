"""The pipeline on Kaggle's GPU: the run and its CSV come back as if train and predict had made them here.

    python -m pipeline.kernel push --preset best

Packs the project into a private script kernel, pushes it, waits, and fetches its output.  data/kernels/RUN keeps what
was pushed, so the same command resumes waiting; only --force pushes again.
"""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click

from pipeline import cli, commands, console
from pipeline.config import Paths, fingerprint
from pipeline.console import BYTES, Meter, duration
from pipeline.errors import BadData, Log, MissingInput, NetworkError, PipelineError, UsageError, printable
from pipeline.kaggle_api.client import Kaggle
from pipeline.kernel_runner import CSV_ENDINGS, RUN_FILES
from pipeline.kernel_source import AGAIN, NOTE, Kernel
from pipeline.store import atomic, ledger, manifest, runs
from pipeline.store.runs import Run
from pipeline.store.submissions import Evidence, keep, local_csv, strangers

WAITING = ("QUEUED", "NEW_SCRIPT", "RUNNING")  # statuses that change by themselves
REMINDER = 600.0  # seconds after which an unchanged status is logged again
ATTEMPTS = 15  # in about ten minutes, because the connection may fail within hours
LOG_LINES = 15  # of a failed kernel's log
UNKNOWN_USER = "YOUR-KAGGLE-NAME"


@dataclass(frozen=True)
class Kernels:
    """Pushes kernels and fetches their runs.  Both methods raise:

    UsageError     another kernel, run or CSV has that name; or the source is too large
    AccessDenied   the credentials, or the competition's rules (see pipeline.errors)
    PipelineError  Kaggle refused the kernel, or it failed; the end of its log is logged
    NetworkError   Kaggle does not reply, or the kernel did not end in time
    BadData        its output is not what was ordered
    """

    paths: Paths
    kaggle: Kaggle
    log: Log
    force: bool = False  # replace the run here or the kernel at Kaggle
    wait: float = 43_200.0  # seconds; no kernel may run longer than twelve hours
    poll: float = 15.0  # seconds between two requests

    def push(self, kernel: Kernel) -> Run | None:
        """Push the kernel and fetch its run, unless that was done before.

        With a `wait` of 0 it does not wait for a new kernel: None.
        """
        folder = self.paths.kernels / kernel.run
        with atomic.lock(folder):
            if (run := self._run_here(kernel)) is not None:
                return run
            if self.force or not (folder / NOTE).exists():
                pushed = self._push(replace(kernel, user=self.kaggle.username()))
                if not self.wait:
                    self.log(f"kernel: not waiting; later: {self._fetch_command(pushed)}")
                    return None
            else:
                pushed = Kernel.read_note(self.paths.kernels, kernel.run)
                if replace(pushed, user="", version=0) != kernel:
                    raise UsageError(f"{pushed.url} was pushed with other options: choose another --run, or {AGAIN}")
                self.log(f"kernel: {pushed.ref} was pushed before; resuming")
            return self._bring(pushed)

    def fetch(self, name: str | None) -> Run:
        """Fetch the run of a kernel pushed from here, by default the last one; MissingInput if there is none."""
        kernel = Kernel.read_note(self.paths.kernels, name)
        with atomic.lock(self.paths.kernels / kernel.run):
            return self._run_here(kernel) or self._bring(kernel)

    def _run_here(self, kernel: Kernel) -> Run | None:
        """The kernel's run, made the latest, if it and its CSV are here."""
        folder, csv = self.paths.models / kernel.run, self.paths.submissions / f"{kernel.run}.csv"
        if self.force or not (folder.exists() or csv.exists()):
            return None
        try:
            run = verify(kernel, self.paths)
        except (BadData, MissingInput) as error:
            ours = not (strangers(csv) or runs.strangers(folder))
            fetched = isinstance(error, MissingInput) and (self.paths.kernels / kernel.run / NOTE).exists()
            again = f"`{replace(self, force=True)._fetch_command(kernel)}`" if fetched else "--force"
            cure = f"choose another --run{f', or {again}' if ours else ''}"
            raise UsageError(f"{error}; the kernel's results would take its place: {cure}") from None
        console.show(f"run {kernel.run} and its CSV are here already, nothing to do")
        runs.point_latest(self.paths.models, kernel.run)
        return run

    def _push(self, kernel: Kernel) -> Kernel:
        """Push it, and note what Kaggle makes of it."""
        kernel.write_source(self.paths.kernels / kernel.run, self.log)
        self.kaggle.files(kernel.competition)  # without them a kernel would fail after its wait in the queue
        try:
            version = self.kaggle.push_kernel(self.paths.kernels / kernel.run, kernel.ref, kernel.competition)
        except (NetworkError, KeyboardInterrupt) as error:
            if isinstance(error, NetworkError) and not error.unanswered:
                raise
            kernel.write_note(self.paths.kernels)  # fetch takes the newest version
            cure = f"`{self._fetch_command(kernel)}` waits for it, or see {kernel.url}"
            kind = NetworkError if isinstance(error, NetworkError) else KeyboardInterrupt
            raise kind(f"{str(error) or 'interrupted'}; Kaggle may still have accepted the kernel: {cure}") from error
        kernel = replace(kernel, version=version)
        kernel.write_note(self.paths.kernels)
        self.log(f"kernel: pushed as version {version}: {kernel.url}")
        return kernel

    def _bring(self, kernel: Kernel) -> Run:
        """Wait for the kernel, then fetch, verify and install its output."""
        incoming = self.paths.kernels / kernel.run / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            self._await_end(kernel)
            names = [f"data/models/{kernel.run}/{name}" for name in RUN_FILES]
            names += [f"submissions/{kernel.run}{ending}" for ending in CSV_ENDINGS]
            incoming.mkdir(parents=True)
            with Meter(f"kernel: {kernel.run}", None, BYTES, self.log) as meter:
                self.kaggle.kernel_output(kernel.ref, names, incoming, meter.update)
            run = self._publish(kernel, Paths(models=incoming / "data/models", submissions=incoming / "submissions"))
        except KeyboardInterrupt:
            later = self._fetch_command(kernel)  # not the same command: with --force it would push again
            raise KeyboardInterrupt(f"interrupted; {kernel.ref} stays at Kaggle; later: `{later}`") from None
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        csv = self.paths.submissions / f"{kernel.run}.csv"
        accuracy = f"holdout {run.result.test_accuracy:.2f}% after {duration(run.result.seconds)} of training"
        console.show(f"{self.paths.models / run.name} and {csv} are here, verified: {accuracy}")
        cli.announce("check", kernel.competition, self.paths, "--csv", str(csv))
        return run

    def _fetch_command(self, kernel: Kernel) -> str:
        """The command that resumes waiting; without --force a run that is here would end it."""
        more = ("--run", kernel.run, *(("--force",) if self.force else ()))
        return commands.command("kernel fetch", kernel.competition, self.paths, *more)

    def _await_end(self, kernel: Kernel) -> None:
        """Wait until the kernel is complete."""
        start = logged_at = time.monotonic()
        logged = ""
        patient = replace(self.kaggle, attempts=ATTEMPTS) if self.wait else self.kaggle
        while True:
            answer = patient.kernel_status(kernel.ref)
            now = time.monotonic()
            status = printable(answer.status.lower().replace("_", " "))
            if status != logged or now - logged_at >= REMINDER:
                self.log(f"kernel: {kernel.ref} is {status}, after {duration(now - start)}")
                logged, logged_at = status, now
            if answer.status == "COMPLETE":
                return
            if answer.status not in WAITING:
                with suppress(PipelineError):  # a missing log must not hide the failure
                    for line in self.kaggle.kernel_log(kernel.ref)[-LOG_LINES:]:
                        self.log(f"| {line}")
                why = f" ({printable(answer.message)})" if answer.message else ""
                raise PipelineError(f"the kernel is {status}{why}, see {kernel.url}; fix it, then {AGAIN}")
            if now - start >= self.wait:
                later = self._fetch_command(kernel)
                raise NetworkError(f"{kernel.ref} did not end within {self.wait:.0f} s: `{later}` waits again")
            self.kaggle.sleep(self.poll)

    def _publish(self, kernel: Kernel, incoming: Paths) -> Run:
        """Verify and install the run and, last, its CSV; make the run the latest."""
        try:
            run = verify(kernel, incoming)
        except (BadData, MissingInput) as error:
            cure = f"run the same command again, or {AGAIN}"
            raise BadData(f"the kernel's output is not what was requested: {cure} ({error})") from error
        folder, csv = self.paths.models / kernel.run, self.paths.submissions / f"{kernel.run}.csv"
        with atomic.lock(folder), atomic.lock(csv):
            for other in strangers(csv):
                atomic.set_aside(other, self.log)
            keep(csv, ledger.sent(ledger.read(csv.parent / ledger.NAME)), self.log)
            with atomic.replacing_folder(folder, self.log if runs.strangers(folder) else None) as new:
                for name in RUN_FILES:
                    shutil.copyfile(run.folder / name, new / name)
            for ending in CSV_ENDINGS:
                with atomic.replacing(csv.with_suffix(ending)) as temporary:
                    shutil.copyfile((incoming.submissions / csv.name).with_suffix(ending), temporary)
        runs.point_latest(self.paths.models, kernel.run)
        return Run.open(self.paths.models, kernel.run)


def verify(kernel: Kernel, paths: Paths) -> Run:
    """The kernel's run, with its CSV in the folders `paths`; BadData or MissingInput if it is not as requested."""
    run, csv = Run.open(paths.models, kernel.run), paths.submissions / f"{kernel.run}.csv"
    if (run.card.competition, run.card.config) != (kernel.competition, kernel.config):
        raise BadData(f"run {run.name} has other options than this kernel")
    if {*run.manifest.files, manifest.NAME} != set(RUN_FILES):
        raise BadData(f"the manifest of run {run.name} lists files that a run does not have")
    if changed := run.manifest.changed(run.folder):
        raise BadData(f"{changed[0]} does not match its manifest")
    local = local_csv(csv, kernel.competition)
    if (local.sidecar.run, local.sidecar.weights_sha256) != (run.name, run.weights_sha256):
        raise BadData(f"{csv} is of another run")
    Evidence.read(local)
    return run


# --- the command line -----------------------------------------------------------------------------------------


def _waiting(function: Callable[..., None]) -> Callable[..., None]:
    """The options for waiting and fetching."""
    wait = cli.wait(43200, "the kernel's end")
    for option in (cli.force, cli.submissions, cli.models, cli.timeout, cli.poll(15), wait):
        function = option(function)
    return function


@cli.stage_command(
    """
python -m pipeline.kernel push                           the paper's model and recipe on Kaggle's GPU
python -m pipeline.kernel push --preset best --seed 1    any recipe of train
python -m pipeline.kernel push --dry-run                 look at what would be sent, in data/kernels/RUN
python -m pipeline.kernel push --wait 0                  push, and fetch later
python -m pipeline.kernel push --internet --force        push again, with internet for missing packages
""",
    cli.RECIPE_GROUPS,
)
@cli.new_competition
@cli.recipe_options
@cli.run_name("Name of the run and, with hyphens, of the kernel; by default made from the options.")
@click.option("--internet", is_flag=True, help="Give the kernel internet, which many competitions forbid.")
@click.option("--accelerator", metavar="NAME",
              help="Accelerator by Kaggle's name, such as NvidiaTeslaT4; none: the CPU; by default a GPU of Kaggle's "
              "choice.")  # fmt: skip
@_waiting
@click.option("--dry-run", is_flag=True, help="Write into data/kernels/RUN what would be sent, and stop.")
def push_command(
    slug: str, preset: str, run_name: str | None, internet: bool, accelerator: str | None, wait: float,
    poll: float, timeout: float, paths: Paths, force: bool, dry_run: bool, **recipe: Any,
) -> None:  # fmt: skip
    """Train and predict on Kaggle's machine, and fetch the run and its CSV.

    The kernel is private.  Ctrl-C leaves it running; the same command resumes waiting.
    """
    config = cli.recipe(preset, recipe)
    config.model.require_within_limit()
    # The default name tells other options apart; the data is not known here.
    default = f"{config.preset}-kaggle-{fingerprint([slug, config.to_dict()])[:8]}"
    kernel = Kernel(slug, run_name or default, config, internet, accelerator)
    kaggle = Kaggle(timeout=timeout, log=console.log)
    if dry_run:
        folder = paths.kernels / kernel.run
        replace(kernel, user=UNKNOWN_USER).write_source(folder, console.log)
        console.show(f"nothing was sent; to push by hand, replace {UNKNOWN_USER} with your Kaggle user name, then")
        console.show(f"  kaggle kernels push -p {folder}")
    else:
        Kernels(paths, kaggle, console.log, force, wait, poll).push(kernel)


@cli.stage_command("""
python -m pipeline.kernel fetch                      the kernel that was pushed last
python -m pipeline.kernel fetch --run RUN --wait 0   the run's kernel, if it has ended
""")
@cli.run_name("The run whose kernel was pushed; by default the last.")
@_waiting
def fetch_command(run_name: str | None, wait: float, poll: float, timeout: float, paths: Paths, force: bool) -> None:
    """Wait for a kernel that was pushed from here, and fetch its run and its CSV."""
    kaggle = Kaggle(timeout=timeout, log=console.log)
    Kernels(paths, kaggle, console.log, force, wait, poll).fetch(run_name)


command = click.Group(
    "kernel", {"push": push_command, "fetch": fetch_command}, help=__doc__, short_help="Kaggle's GPU.",
    no_args_is_help=False,  # an error like any other
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


main = partial(cli.run, command, "kernel")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
