"""Stage 4: a run and the hidden images -> submissions/RUN.csv, with a sidecar that says where it comes from.

    python -m pipeline.predict --out submissions/sub.csv

Without --run it takes the run that train finished last.  The run's folder says which network, which
competition and which preprocessing; there are no model flags.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import cli
from pipeline.config import Paths
from pipeline.errors import BadData, Say, UsageError
from pipeline.gap import ledger
from pipeline.kaggle_api import submission_format
from pipeline.store import atomic, runs, sidecar
from pipeline.store.manifest import FileRecord, versions
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.store.sidecar import Sidecar

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Predicted:
    """The CSV and its sidecar; `done` is False when it was complete before."""

    csv: Path
    sidecar: Sidecar
    done: bool


def predict(
    paths: Paths, say: Say, *, run_name: str | None = None, out: Path | None = None, device: str = "auto",
    batch_size: int = 512, force: bool = False,
) -> Predicted:  # fmt: skip
    """Write a run's labels for the hidden images.

    Args:
        run_name: a finished run; by default the one that train finished last.
        out: the CSV; by default submissions/RUN.csv.
        batch_size: hidden images at once; memory does not depend on how many there are in all.

    Raises:
        MissingInput: no finished run, or its competition's data is not preprocessed.
        BadData: the run's or the data's files are damaged, or the data changed since the run was trained.
        UsageError: `out` is a CSV of somebody else's making, and not `force`.
    """
    run = Run.open(paths.models, run_name)
    say(f"predict: run {run.name} (preset {run.card.config.preset}, competition {run.card.competition})")
    data = Processed.open(paths.processed / run.card.competition)
    if data.training_fingerprint != run.card.data:
        raise BadData(f"{data.folder} changed since run {run.name} was trained on it: train again, or restore it")
    csv = out if out is not None else paths.submissions / f"{run.name}.csv"
    if csv.suffix != ".csv":
        raise UsageError(f"--out {csv}: the name must end in .csv (its sidecar ends in .json)")
    if csv.name == ledger.NAME:
        raise UsageError(f"--out {csv}: that is the ledger's name")
    # A partial file is what a killed predict left: then CSV and sidecar may differ without anybody's editing.
    if csv.exists() and not force and not atomic.partial(csv).exists():
        found = Sidecar.read(csv)
        if found is None or found.csv_sha256 != FileRecord.of(csv).sha256:
            raise UsageError(f"{csv} was not written by predict, or edited since: choose another --out, or --force")
        same = found.weights_sha256 == run.weights_sha256 and found.hidden == data.hidden_fingerprint
        if same and found.run == run.name:
            say(f"predict: {csv} is complete for this run, nothing to do")
            return Predicted(csv, found, done=False)

    if not force and not sidecar.is_ours(csv):
        raise UsageError(f"{sidecar.path_of(csv)} is no sidecar of predict's: choose another --out, or --force")
    with atomic.lock(csv):
        written = _write(run, data, csv, device, batch_size, say)
    return Predicted(csv, written, done=True)


def _write(run: Run, data: Processed, csv: Path, device: str, batch_size: int, say: Say) -> Sidecar:
    """Predict, then publish the sidecar and, last, the CSV."""
    counts = np.zeros(len(data.class_names), dtype=np.int64)
    with atomic.replacing(csv) as temporary:
        rows = submission_format.write(temporary, _counted(_batches(run, data, device, batch_size), counts))
        digest = FileRecord.of(temporary).sha256
        written = Sidecar(
            competition=run.card.competition,
            run=run.name,
            csv_sha256=digest,
            rows=rows,
            weights_sha256=run.weights_sha256,
            hidden=data.hidden_fingerprint,
            validation_accuracy=run.result.validation_accuracy,
            validation_set=run.result.validation_set,
            test_accuracy=run.result.test_accuracy,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions("torch", "numpy"),
        )
        written.write(csv)
    share = ", ".join(f"{n} {100 * c / rows:.1f} %" for n, c in zip(data.class_names, counts.tolist(), strict=True))
    say(f"predict: {rows:,} rows -> {csv}, for {run.card.competition}: {share}")
    if run.result.optimistic:
        say("predict: its local accuracy is optimistic: the best epoch was selected on the same test_batch")
    return written


def _counted(batches: Iterator[Batch], counts: NDArray[np.int64]) -> Iterator[Batch]:
    """Pass batches on and count the labels in `counts`, (classes,)."""
    for ids, labels in batches:
        counts += np.bincount(labels, minlength=len(counts))
        yield ids, labels


def _batches(run: Run, data: Processed, device_name: str, batch_size: int) -> Iterator[Batch]:
    """(ids, labels), both int64 (B,), in the hidden file's order."""
    import torch  # noqa: PLC0415 - so that a CSV that is complete is found without it

    from pipeline.model import weights  # noqa: PLC0415
    from pipeline.model.inputs import normalise  # noqa: PLC0415
    from pipeline.training.device import choose  # noqa: PLC0415

    device = choose(device_name)
    if FileRecord.of(run.folder / runs.WEIGHTS).sha256 != run.weights_sha256:
        raise BadData(f"{run.folder / runs.WEIGHTS} is damaged: train the run again with --force")
    network = weights.load(run.folder / runs.WEIGHTS, run.card.config.model).to(device.torch_device)
    images, ids = data.array("hidden_images"), data.array("hidden_ids")
    with tqdm(total=len(ids), desc="predict", unit="image", disable=None) as bar, torch.inference_mode():
        for start in range(0, len(ids), batch_size):
            rows = slice(start, start + batch_size)
            pixels = np.array(images[rows])  # a copy: the file's own pages are read-only
            with device.autocast():
                logits = network(normalise(torch.from_numpy(pixels).to(device.torch_device)))
            if not bool(torch.isfinite(logits).all()):
                raise BadData(f"run {run.name} answers with numbers that are not finite: train it again")
            yield np.asarray(ids[rows]), logits.argmax(dim=1).cpu().numpy()
            bar.update(len(pixels))


@cli.stage_command("""
python -m pipeline.predict --out submissions/sub.csv      the run that train finished last
python -m pipeline.predict --run paper-1f3a9c2b           that run, into submissions/paper-1f3a9c2b.csv
""")
@cli.run_name
@click.option(
    "--out",
    metavar="CSV",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The CSV to write; by default submissions/RUN.csv.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=512, show_default=True, help="Hidden images at once.")
@cli.device
@cli.processed
@cli.models
@cli.submissions
@cli.force
def command(
    run_name: str | None, out: Path | None, batch_size: int, device: str, processed: Path, models: Path,
    submissions: Path, force: bool,
) -> None:  # fmt: skip
    """Label the hidden images with a run and write the submission and its sidecar."""
    paths = Paths(processed=processed, models=models, submissions=submissions)
    predict(paths, cli.say, run_name=run_name, out=out, device=device, batch_size=batch_size, force=force)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "predict", argv)


if __name__ == "__main__":
    sys.exit(main())
