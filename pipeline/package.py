"""python -m pipeline.package: a CSV and the runs behind it -> data/packages/RUN.zip, what Kaggle asks of winners.

From the package a stranger makes the submitted CSV again: the code, the weights, exact versions, entry points, and
SETTINGS.json as the only place for paths.  No data goes into it.  PyTorch is not imported.
"""

import shlex
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline import cli, progress
from pipeline.config import PARAMETER_BUDGET, Paths
from pipeline.errors import BadData, MissingInput, PipelineError, Say, UsageError
from pipeline.packing import bundle, contents, environment, lineage
from pipeline.packing.lineage import Made
from pipeline.packing.pages import Subject
from pipeline.store import atomic, machine, project
from pipeline.store.ensemble import Ensemble
from pipeline.store.manifest import Manifest
from pipeline.store.processed import training_fingerprint
from pipeline.store.runs import ANEW
from pipeline.store.sidecar import Sidecar, again, written_by_predict

OURS = "entry_points.md"  # a zip that has it is a package


@dataclass(frozen=True)
class Packaged:
    """The zip and what is in it; `done` is False when it was complete before."""

    zip: Path
    files: int
    done: bool


def package(
    paths: Paths, say: Say, *, names: Sequence[str] = (), csv: Path | None = None, out: Path | None = None,
    force: bool = False, here: str,
) -> Packaged:  # fmt: skip
    """Pack a CSV's runs, those that taught them, and the code.

    Args:
        names: the runs behind the CSV; by default the CSV's, and without `csv` the one that train finished last.
        csv: what the package makes again; by default submissions/RUN.csv.
        out: the zip; by default data/packages/RUN.zip.
        here: the machine that packs it, for people.

    Raises:
        MissingInput: there is no such run or CSV.
        BadData: a file was edited, is damaged, or a run was trained again since the CSV was predicted.
        UsageError: the competition would not have it (pretrained weights, too many parameters), the CSV is not of
            these runs, or `out` is not a package, and not `force`.
    """
    ensemble, source, card = _submission(paths, names, csv)
    made = lineage.trace(ensemble.runs, paths.models, paths.submissions)
    _require_whole(made)
    _introduce(made, source, card, say)
    subject = Subject(
        name=Path(ensemble.csv_name).stem,
        csv=source.name,
        sidecar=card,
        made=made,
        raw=_raw(paths.processed / card.competition, ensemble.data, card.hidden),
        requirements=environment.requirements(project.ROOT / "requirements.txt", card.versions),
        machine=here,
    )
    target = _target(out, paths, subject.name)
    members = contents.members(subject)
    with atomic.lock(target):
        done = _write(target, subject.name, members, force)
    found = f"{len(members)} files, {progress.megabytes(target.stat().st_size)}"
    say(f"package: {found} -> {target}" if done else f"package: {target} is complete ({found}), nothing to do")
    say("package: your team, your contact and Kaggle's write-up are yours to add")
    return Packaged(target, len(members), done)


def _submission(paths: Paths, names: Sequence[str], csv: Path | None) -> tuple[Ensemble, Path, Sidecar]:
    """The runs, their CSV and its sidecar, which agree."""
    if csv is not None:
        behind = _card(csv).run.split("+")
        if names and sorted(names) != sorted(behind):
            raise UsageError(f"{csv} was predicted by {' '.join(behind)}, not by --run {' '.join(names)}")
        names = behind
    ensemble = Ensemble.open(paths.models, paths.pretrained, names)
    _require_allowed(ensemble)
    runs = ensemble.name.replace("+", " ")
    source = csv if csv is not None else paths.submissions / ensemble.csv_name
    if not source.is_file():
        raise MissingInput(
            f"{source} is not there: `python -m pipeline.predict --run {runs}` writes it; or name the CSV of "
            "yours with --csv"
        )
    card = _card(source)
    if card.competition != ensemble.competition:
        raise UsageError(
            f"{source} is for {card.competition}, and {runs} learned from the images of {ensemble.competition}: a "
            "package is about one competition"
        )
    if card.weights_sha256 != ensemble.weights_sha256:
        raise BadData(
            f"{source} was not predicted with the weights that {runs} has now: "
            f"{again(source, ensemble.name)}, or name its runs with --csv {shlex.quote(str(source))}"
        )
    return ensemble, source, card


def _card(csv: Path) -> Sidecar:
    """The sidecar of a CSV that predict wrote.

    Raises:
        MissingInput: there is no such CSV.
        BadData: it was written or edited by somebody else.
    """
    known = Sidecar.read(csv)
    card, _ = written_by_predict(csv, known.competition if known is not None else "")
    return card


def _require_allowed(ensemble: Ensemble) -> None:
    """Refuse what the competition would not let win.

    Raises:
        UsageError: a network is pretrained or over the budget.
    """
    for run in ensemble.runs:
        if run.origin is not None:
            raise UsageError(
                f"--run {run.name}: it came with the project, and the competition forbids pretrained weights: train "
                "a network of your own with `python -m pipeline.train`"
            )
        if not run.result.submittable:
            raise UsageError(
                f"--run {run.name}: {run.result.trainable_parameters:,} trainable parameters are over the "
                f"competition's {PARAMETER_BUDGET:,}: package a run within them"
            )


def _require_whole(made: Sequence[Made]) -> None:
    """Refuse to pack damaged files.

    Raises:
        BadData: naming one.
    """
    for one in made:
        if changed := one.run.manifest.changed(one.run.folder):
            raise BadData(f"{one.run.folder / changed[0]} is missing or damaged: {ANEW}")


def _introduce(made: Sequence[Made], csv: Path, card: Sidecar, say: Say) -> None:
    """Say what is packed, and what a stranger could not make again."""
    say(f"package: {csv}, for {card.competition}, predicted by {card.run.replace('+', ', ')}")
    for one in made:
        if one.teachers:
            say(f"package: {one.name} learned from {', '.join(teacher.name for teacher in one.teachers)}")
        if one.labels is not None:
            say(
                f"package: {one.name} learned from the hidden images, labelled by {one.labels.name}: the README says so"
            )
        for lost in one.lost:
            say(f"package: WARNING: {lost} is not here any more, and without it {one.name} cannot be trained again")


def _raw(processed: Path, data: str, hidden: str) -> Mapping[str, str]:
    """The competition's files from which these images came: name -> sha256; empty if that is not known here."""
    try:
        known = Manifest.read(processed)
    except PipelineError:
        return {}
    if known is None or (training_fingerprint(known), known.fingerprint("hidden_")) != (data, hidden):
        return {}
    return known.inputs


def _target(out: Path | None, paths: Paths, name: str) -> Path:
    """Where the zip goes.

    Raises:
        UsageError: it has no zip's name.
    """
    target = out if out is not None else paths.packages / f"{name}.zip"
    if target.suffix != ".zip":
        raise UsageError(f"--out {target}: the name must end in .zip")
    return target


def _write(target: Path, root: str, members: bundle.Members, force: bool) -> bool:
    """Write the zip unless it is complete; whether it was written.

    Raises:
        UsageError: something else is there, and not `force`.
    """
    if target.exists() and not force:
        if bundle.holds(target, root, members, contents.FOLDERS):
            return False
        if not _is_package(target):
            raise UsageError(f"{target} is no package: choose another --out, or --force")
    with atomic.replacing(target) as temporary:
        bundle.write(temporary, root, members, contents.FOLDERS)
    return True


def _is_package(path: Path) -> bool:
    """Whether an older package is there."""
    try:
        with zipfile.ZipFile(path) as source:
            return any(name.partition("/")[2] == OURS for name in source.namelist())
    except zipfile.BadZipFile:
        return False


@cli.stage_command("""
python -m pipeline.package                              the run that train finished last, and submissions/RUN.csv
python -m pipeline.package --run paper-1f3a9c2b         that run
python -m pipeline.package --run A B C                  the three runs that predict averaged
python -m pipeline.package --csv submissions/sub.csv    that CSV, with all the runs behind it
""")
@cli.run_names("Runs under --models; by default the one that train finished last, or those behind --csv.")
@cli.csv("The CSV to make again; by default submissions/RUN.csv, or ensemble-HASH.csv there for several runs.")
@click.option("--out", metavar="ZIP", type=cli.FILE,
              help="The zip to write; by default data/packages/RUN.zip.")  # fmt: skip
@cli.processed
@cli.models
@cli.submissions
@cli.force
def command(
    names: tuple[str, ...], csv: Path | None, out: Path | None, processed: Path, models: Path, submissions: Path,
    force: bool,
) -> None:  # fmt: skip
    """Pack what Kaggle asks of winners: everything from which a stranger makes the submitted CSV again."""
    paths = Paths(processed=processed, models=models, submissions=submissions)
    package(paths, cli.say, names=names, csv=csv, out=out, force=force, here=machine.description())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "package", cli.spread(sys.argv[1:] if argv is None else argv, "--run"))


if __name__ == "__main__":
    sys.exit(main())
