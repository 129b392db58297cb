"""Stage 4: run + test set -> submissions/RUN.csv, and its origin and probabilities beside it.

    python -m pipeline.predict --out submissions/sub.csv

Without --run it takes what train finished last: a run, or all seeds of one command.  The run's folder knows its model
and its competition; there are no model options.  A submitted CSV is kept as RUN-2.csv.
"""

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, get_args

import click
import numpy as np

from pipeline import cli, commands, console
from pipeline.config import PARAMETER_LIMIT, Paths, check_slug, competition
from pipeline.console import duration, working
from pipeline.errors import BadData, Log, UsageError
from pipeline.gap.assessment import assess_and_record
from pipeline.store import atomic, ledger, runs, submission_format, submissions
from pipeline.store.ensemble import Ensemble
from pipeline.store.manifest import FileRecord, versions
from pipeline.store.processed import Processed
from pipeline.store.submissions import Adapt, Evidence, LocalCsv, Mitigation, Sidecar, Tta

if TYPE_CHECKING:
    from pipeline.training.inference import Panel


def predict(
    paths: Paths, log: Log, *, names: Sequence[str] = (), slug: str | None = None, tta: Tta = "none",
    adapt: Adapt = "auto", out: Path | None = None, device: str = "auto", batch_size: int = 512, verbose: bool = False,
    force: bool = False,
) -> LocalCsv:  # fmt: skip
    """Predict the test set of `slug`, by default the runs' own competition.

    Averages the probabilities of several runs; takes by default what train finished last.
    Streams the images: only predictions stay in memory, some 40 bytes per image.

    Raises:
        MissingInput: no finished run, or the competition's data is not preprocessed.
        BadData: files of the run or the data are damaged, or the run was trained on other data.
        UsageError: the runs do not match, or predict did not write the existing `out` (`force` keeps a copy).
    """
    ensemble = Ensemble.open(paths.models, paths.pretrained, names)
    data = Processed.open(paths.processed / (slug or ensemble.competition))
    for line in _introduction(ensemble, data):
        log(f"predict: {line}")
    csv = out if out is not None else paths.submissions / ensemble.csv_name
    if csv.suffix != ".csv" or csv.name.lower() == ledger.NAME:
        raise UsageError(f"--out {csv}: the name must end in .csv, and {ledger.NAME} is the ledger's name")
    old = None if force else _existing(csv)
    wanted = (data.folder.name, ensemble.name, ensemble.weights_sha256, data.hidden_fingerprint, tta, adapt)
    if old and wanted == (old.competition, old.run, old.weights_sha256, old.hidden, old.tta, old.adapt):
        console.show(f"{csv}: complete for this run, nothing to do")
    else:
        sent = ledger.sent(ledger.read(paths.submissions / ledger.NAME))
        with atomic.lock(csv):
            _write(
                ensemble, data, csv, log, tta=tta, adapt=adapt, device_name=device, batch_size=batch_size,
                verbose=verbose, sent=sent,
            )  # fmt: skip
    written = submissions.local_csv(csv)
    if submissions.evidence_path(csv).exists():  # an older CSV has nothing to predict its score by
        _predict_score(written, paths, verbose)
    return written


def _introduction(ensemble: Ensemble, data: Processed) -> list[str]:
    """Which runs predict, and warnings about them; BadData if they were trained on other images."""
    slug, lines = data.folder.name, []
    for run in ensemble.runs:
        lines.append(f"run {run.name} (preset {run.card.config.preset}, competition {slug})")
        if run.origin is not None:
            lines.append(f"{run.name}: bundled weights, trained on {run.origin.partition(',')[0]}")
            lines.append("the competition forbids pretrained weights: train your own to compete")
        elif data.training_fingerprint != run.card.data:
            raise BadData(f"{data.folder} is not what run {run.name} was trained on: train again, or use another --run")
        if not run.result.submittable:
            lines.append(
                f"NOT SUBMITTABLE: run {run.name} has {run.result.trainable_parameters:,} trainable parameters, "
                f"over the limit of {PARAMETER_LIMIT:,}"
            )
    if len(ensemble.runs) > 1:
        rules = "; the limit is per model, and the rules do not mention ensembles"
        over = rules * (ensemble.parameters > PARAMETER_LIMIT)
        lines.append(f"averaging {len(ensemble.runs)} runs, {ensemble.parameters:,} parameters together{over}")
    return lines


def _existing(csv: Path) -> Sidecar | None:
    """The sidecar of a complete CSV; UsageError if predict did not write the CSV, or a file beside it."""
    if others := submissions.strangers(csv):
        cure = f"run predict again with --out {shlex.quote(str(submissions.free(csv)))}"
        raise UsageError(f"{others[0]} was not written by predict, or was edited since; it stays as it is: {cure}")
    # A killed predict leaves a partial file.
    return Sidecar.read(csv) if csv.exists() and not atomic.partial(csv).exists() else None


def _write(
    ensemble: Ensemble, data: Processed, csv: Path, log: Log, *, tta: Tta, adapt: Adapt, device_name: str,
    batch_size: int, verbose: bool, sent: Collection[str],
) -> None:  # fmt: skip
    """Predict the holdout and the test set, then write the CSV; `sent` are the sha256 of submitted ones."""
    # PyTorch takes seconds to import, and a CSV that is complete is found without it.
    with working("loading PyTorch"):
        from pipeline.gap.prediction import predict_hidden  # noqa: PLC0415
        from pipeline.training import inference  # noqa: PLC0415
        from pipeline.training.device import choose, device_advice  # noqa: PLC0415

    began, device, result = monotonic(), choose(device_name, log=log), ensemble.runs[0].result
    with device_advice(device, batch_size):
        panel = inference.Panel(inference.load(ensemble.runs, device), tta, batch_size, log)
        holdout, validation = inference.predict_holdout(ensemble, panel, data)
        recorded = None
        test, validated = 100 * holdout.accuracy, None if validation is None else 100 * validation.accuracy
        if len(ensemble.runs) == 1 and tta == "none" and data.training_fingerprint == ensemble.data:
            # Of a single run without TTA, result.json has the accuracies.
            test, validated, recorded = result.test_accuracy, result.validation_accuracy, result.test_accuracy / 100
        else:
            log(f"predict: {inference.holdout_line(ensemble, holdout, validation)}")
        evidence, findings = predict_hidden(
            panel, data, adapt, log, holdout=holdout, validation=validation, recorded=recorded
        )
    _publish(
        ensemble, panel, data, csv, evidence, test, validated, adapt=adapt, mitigation=findings.mitigation, sent=sent
    )
    rows = len(evidence.hidden)
    console.show(f"{csv}: {rows:,} rows, in {duration(monotonic() - began)}")
    if verbose:
        counts = np.bincount(evidence.hidden.labels, minlength=len(data.class_names))
        shares = (f"{n} {100 * c / rows:.1f}%" for n, c in zip(data.class_names, counts, strict=True))
        console.show(f"classes: {', '.join(shares)}")


def _publish(
    ensemble: Ensemble, panel: "Panel", data: Processed, csv: Path, evidence: Evidence, test: float,
    validated: float | None, *, adapt: Adapt, mitigation: Mitigation, sent: Collection[str],
) -> None:  # fmt: skip
    """Write the saved probabilities, the sidecar and, last, the CSV."""
    ids, labels, others = data.array("hidden_ids"), evidence.hidden.labels, submissions.strangers(csv)
    device = panel.members[0].device
    with atomic.replacing(csv) as temporary:
        submission_format.write(temporary, ids, labels)
        digest = FileRecord.of(temporary).sha256
        for other in others:
            atomic.set_aside(other, panel.log)
        submissions.keep(csv, {*sent} - {digest}, panel.log)
        evidence.write(csv, digest)
        Sidecar(
            competition=data.folder.name,
            run=ensemble.name,
            csv_sha256=digest,
            rows=len(ids),
            weights_sha256=ensemble.weights_sha256,
            hidden=data.hidden_fingerprint,
            validation_accuracy=validated,
            validation_set=ensemble.validation_set,
            test_accuracy=test,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions("torch", "numpy"),
            runs={run.name: run.weights_sha256 for run in ensemble.runs},
            pseudo_labels=sorted({run.card.config.pseudo_labels for run in ensemble.runs} - {""}),
            mirrored=all(run.card.config.flip != "none" for run in ensemble.runs),
            submittable=ensemble.submittable,
            tta=panel.tta,
            adapt=adapt,
            measure=mitigation,
            device=f"{device.description}, {device.precision}",
        ).write(csv)


def _predict_score(csv: LocalCsv, paths: Paths, verbose: bool) -> None:
    """Predict the public score, and record it in the ledger before the score is known."""
    path, slug = paths.submissions / ledger.NAME, csv.sidecar.competition
    csvs = submissions.local_csvs(paths.submissions, slug)
    assessed, _ = assess_and_record(path, csv, csvs, ledger.read(path), competition(slug))
    console.show("\n".join([assessed.headline, *(assessed.details if verbose else [])]))


@cli.stage_command("""
python -m pipeline.predict --out submissions/sub.csv      the run that train finished last
python -m pipeline.predict --run paper-1f3a9c2b           that run, into submissions/paper-1f3a9c2b.csv
python -m pipeline.predict --run A B C --tta flip         three runs and their mirror images, averaged
python -m pipeline.predict --run pretrained               the bundled weights
""")
@click.option(
    "--run", "names", metavar="RUN...", multiple=True,
    help="Runs to average; pretrained (or pretrained-NAME) for the bundled weights; by default what train finished "
    "last, a run or all seeds of one command.",
)  # fmt: skip
@click.option("--tta", type=click.Choice(get_args(Tta)), default="none", show_default=True,
              help="Test-time augmentation: mirror images (flip), and shifts as well (flip-shift).")  # fmt: skip
@click.option("--adapt", type=click.Choice(get_args(Adapt)), default="auto", show_default=True,
              help="Mitigation of a shift: batch-norm adaptation (bn), undo a preprocessing mistake (revert), correct "
              "class frequencies (prior); auto: what gains in a trial on holdout images.")  # fmt: skip
@cli.slug("Last part of the competition's URL; by default the run's own, for pretrained as in the other stages.")
@click.option("--out", metavar="CSV", type=cli.FILE,
              help="CSV to write; by default submissions/RUN.csv, or ensemble-HASH.csv there for several "
              "runs.")  # fmt: skip
@click.option("--batch-size", metavar="N", type=click.IntRange(min=1), default=512, show_default=True,
              help="Batch size.")  # fmt: skip
@cli.verbose
@cli.device
@cli.processed
@cli.models
@cli.submissions
@cli.force
def command(names: tuple[str, ...], slug: str | None, paths: Paths, **options: Any) -> None:
    """Predict the test set with one or several runs, and write the CSV."""
    if slug is None and any(map(runs.is_pretrained, names)):
        slug = check_slug(os.environ.get(commands.COMPETITION) or cli.default_competition(paths))
    made = predict(paths, console.log, names=names, slug=slug, **options)
    cli.announce("check", made.sidecar.competition, paths, "--csv", str(made.path))


main = partial(cli.run, command, "predict")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
