"""What is known of a run: gathered from its folder, from the CSV that was predicted with it, and from the ledger.

Nothing is computed with the network and nobody is asked: what the stages have left is enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import cli_recipes, next_steps
from pipeline.config import Competition, Paths, competition, fingerprint
from pipeline.errors import BadData, MissingInput
from pipeline.gap import contact_sheets, join, ledger
from pipeline.gap.join import LocalCsv
from pipeline.gap.judgement import Judgement, judge
from pipeline.gap.ledger import Entry
from pipeline.store import epochs, project, runs
from pipeline.store.epochs import EpochRow
from pipeline.store.evidence import Evidence
from pipeline.store.evidence import path_of as evidence_of
from pipeline.store.manifest import NAME as MANIFEST
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.names import absent
from pipeline.store.processed import Processed
from pipeline.store.runs import Run, RunCard, RunResult


@dataclass(frozen=True)
class Material:
    """One run and all that is known of it; None, or empty, is what is not there (yet)."""

    name: str
    folder: Path
    card: RunCard
    rows: Sequence[EpochRow]  # of the epochs done
    result: RunResult | None  # None: not finished
    versions: Mapping[str, str]
    competition: Competition
    data: Processed | None
    judged: Judgement | None  # of its CSV
    evidence: Evidence | None  # of its CSV, whole
    entries: Sequence[Entry]  # all submissions to the competition, oldest first
    foretold: Mapping[str, Entry]  # their predictions, by the CSV's sha256
    missing: Sequence[str]  # what is not there, and the command that makes it

    @property
    def own(self) -> Entry | None:
        """The newest submission of its CSV."""
        sha256 = self.judged.csv.sidecar.csv_sha256 if self.judged else None
        return next((entry for entry in reversed(self.entries) if entry.ref and entry.csv_sha256 == sha256), None)


def gather(paths: Paths, name: str | None) -> Material:
    """All that is known of the run `name`; by default of the one that train finished last.

    Raises:
        MissingInput: there is no such run, or none at all.
        BadData: its files, or the ledger, are damaged.
    """
    folder = _folder(paths.models, name)
    card, finished = RunCard.read(folder), Manifest.read(folder)
    run = Run.open(paths.models, folder.name) if finished else None
    known, missing = competition(card.competition), []
    if run is None:
        again = cli_recipes.of_run(card, folder.name, paths.submissions)
        command = next_steps.command("train", card.competition, paths, *again)
        missing.append(f"The run is not finished. Unless it is being trained just now, `{command}` goes on with it.")
    lines = ledger.read(paths.submissions / ledger.NAME)
    csvs = join.local_csvs(paths.submissions, card.competition)
    csv, judged, evidence = _csv_of(run, csvs), None, None
    if run is not None and csv is None:
        missing.append(
            f"No answers are shown: `python -m pipeline.predict --run {run.name}` labels the hidden images and "
            "measures the network on test_batch."
        )
    if csv is not None:
        try:
            found = judge(csv, csvs, lines, known)
            judged, evidence = found, found.whole()
        except BadData as error:
            missing.append(f"No prediction is shown: {error}.")
    data, without = _images(paths.processed / known.slug, csv, evidence)
    missing += without
    entries = ledger.current(lines, card.competition)
    if not any(entry.ref for entry in entries):
        missing.append("Nothing has been submitted yet, so no score is known.")
    return Material(
        name=folder.name,
        folder=folder,
        card=card,
        rows=epochs.read(folder / runs.METRICS),
        result=run.result if run else None,
        versions=finished.versions if finished else {},
        competition=known,
        data=data,
        judged=judged,
        evidence=evidence,
        entries=[entry for entry in entries if entry.ref],
        foretold=ledger.predictions(lines, card.competition),
        missing=missing,
    )


def identity(known: Material, paths: Paths) -> str:
    """sha256 (hex) of all that a report is made of: equal identity, equal page, but for the time that it tells."""
    files = [known.folder / name for name in (runs.CONFIG, runs.METRICS, runs.RESULT, MANIFEST)]
    files += [paths.processed / known.competition.slug / MANIFEST, paths.submissions / ledger.NAME]
    files += sorted(paths.submissions.glob("*.json"))  # other runs' CSVs count in a prediction
    if known.judged is not None:
        files.append(evidence_of(known.judged.csv.path))
    contents = {str(path): FileRecord.of(path).sha256 for path in files if path.is_file()}
    code = {name: FileRecord.of(path).sha256 for name, path in project.files().items()}
    return fingerprint([contents, code, list(known.missing)])


def _folder(models: Path, name: str | None) -> Path:
    """The folder of the run `name`; without one, of the run that finished last, or else of the one begun last."""
    begun = [path.parent for path in models.glob(f"[!.]*/{runs.CONFIG}")]
    if name is None:
        try:
            return models / runs.latest(models)
        except MissingInput:
            if not begun:
                raise
            return max(begun, key=lambda folder: (folder / runs.CONFIG).stat().st_mtime)
    folder = models / runs.check_name(name)
    if folder not in begun:
        raise MissingInput(absent(models, name, sorted(path.name for path in begun), None))
    return folder


def _images(folder: Path, csv: LocalCsv | None, evidence: Evidence | None) -> tuple[Processed | None, list[str]]:
    """The images that `csv` answers, or why none can be shown; without one, whether there are any."""
    try:
        if csv is None or evidence is None:
            return Processed.open(folder), []
        return contact_sheets.images(csv, evidence, folder), []
    except (MissingInput, BadData) as error:
        return None, [f"No images are shown: {error}."]


def _csv_of(run: Run | None, csvs: Sequence[LocalCsv]) -> LocalCsv | None:
    """The newest CSV predicted with the run's weights: with it alone, or else with others."""
    if run is None:
        return None
    own = [csv for csv in csvs if csv.sidecar.runs.get(run.name) == run.weights_sha256]
    return max(own, key=lambda csv: (len(csv.sidecar.runs) == 1, csv.sidecar.created), default=None)
