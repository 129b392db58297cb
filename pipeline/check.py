"""Stage 6: predict the public score of a CSV, compare it with Kaggle's, and explain the gap.

    python -m pipeline.check

Takes the newest CSV, or --csv, and joins submissions/ledger.csv with Kaggle's list, submissions by hand included.
The gap is holdout accuracy minus public score.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipeline import cli, commands, console
from pipeline.config import Competition, Paths, competition
from pipeline.console import duration, table, working
from pipeline.errors import AccessDenied, BadData, Log, MissingInput, NetworkError, PipelineError, UsageError, printable
from pipeline.gap.advice import Advice, advise
from pipeline.gap.assessment import Assessment, assess_and_record, prediction_error
from pipeline.gap.estimators import NORMAL
from pipeline.gap.forecast import on_line
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import Kaggle, Submission
from pipeline.kaggle_api.ledger_sync import sync
from pipeline.store import ledger, submission_format, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.processed import Processed
from pipeline.store.submissions import Sidecar

POLL = 2.0  # seconds between two requests to Kaggle, while something is being scored
SHOWN = 30  # submissions in the table
HOLDOUT_ROWS = 10_000  # CIFAR-10's test_batch, if the processed data is missing


@dataclass(frozen=True)
class Checked:
    """What is known and predicted.  Accuracies in per cent, gaps in points; None is unknown.

    `newest` is the newest scored submission of a CSV of ours, else the newest scored one, else the newest.
    """

    competition: Competition
    submissions: Sequence[Entry]
    predictions: Mapping[str, Entry]  # by the CSV's sha256
    newest: Entry | None
    optimistic: bool | None  # whether its checkpoint was selected on the holdout
    facts: Mapping[str, Any]  # that preprocess found about the data, or nothing
    csv: Path | None  # assessed
    sidecar: Sidecar | None  # None: no CSV, or predict did not write it
    assessment: Assessment | None
    advice: Sequence[Advice]
    not_assessed: str | None  # why there is no assessment
    not_asked: str | None  # why Kaggle does not list the submissions
    pictures: Sequence[Path]  # that were drawn

    @property
    def public_rows(self) -> int | None:
        """Rows behind the public score; if unknown, half of them."""
        return self.competition.public_rows or (self.facts["hidden"]["images"] // 2 if self.facts else None)

    @property
    def noise(self) -> dict[str, Any] | None:
        """Whether the newest gap can be sampling noise, with its standard deviation and 95% limit, in points.

        The two-proportion z test: the variance of the difference is p (1 - p) (1/n + 1/m).
        """
        entry, m = self.newest, self.public_rows
        if entry is None or entry.local_test is None or entry.public is None or not m:
            return None
        n = self.facts["test"]["images"] if self.facts else HOLDOUT_ROWS
        p = min(max((entry.local_test * n + entry.public * m) / (n + m), 0.0), 100.0)  # an edited ledger has any number
        sigma = math.sqrt(p * (100 - p) * (1 / n + 1 / m))
        limit = NORMAL.inv_cdf(0.975) * sigma
        exceeds = abs(entry.local_test - entry.public) > limit
        return {"sigma": round(sigma, 3), "limit": round(limit, 3), "exceeds": exceeds}

    @property
    def predicted(self) -> list[dict[str, Any]]:
        """The prediction for each submitted CSV, and its newest submission, preferably scored."""
        newest = {e.csv_sha256: e for e in sorted(self.submissions, key=lambda e: e.public is not None)}
        return [
            {"ref": e.ref, "predicted": p.predicted, "public": e.public, "error": prediction_error(p, e)}
            for sha, e in newest.items()
            if (p := self.predictions.get(sha)) is not None
        ]

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        of_csv = Entry.of(self.sidecar) if self.sidecar else Entry(competition=self.competition.slug)
        entry, line = self.newest or of_csv, self.competition.line
        on = on_line(line, entry.local_test / 100) if line and entry.local_test is not None else None
        return {
            "competition": self.competition.slug, "run": entry.run or None, "ref": entry.ref,
            "status": entry.status or None, "local": entry.local_test, "validation": entry.local_validation,
            "public": entry.public, "private": entry.private, "gap": entry.gap_public,
            "public_rows": self.public_rows, "rows_assumed": self.competition.public_rows is None,
            "noise": self.noise, "optimistic": self.optimistic,
            "line_expects": None if on is None else round(100 * on, 2),
            "submissions": [
                {**asdict(e), "gap_public": e.gap_public, "gap_private": e.gap_private} for e in self.submissions
            ],
            "predictions": self.predicted, "csv": str(self.csv) if self.csv else None,
            "pictures": [str(path) for path in self.pictures],
            "not_judged": self.not_assessed, "not_asked": self.not_asked,
            **(self.assessment.to_dict() if self.assessment else dict.fromkeys(ASSESSED)),
            "advice": [asdict(each) for each in self.advice],
        }  # fmt: skip


ASSESSED = (  # the keys of Assessment.to_dict
    "predicted", "interval", "by", "error", "methods", "refused", "reliable", "doubts", "temperature", "verdict",
    "diagnosis", "trials", "measure", "simulated",
)  # fmt: skip


def check(
    slug: str, paths: Paths, kaggle: Kaggle, log: Log, *, csv: Path | None = None, wait: float = 0.0,
    pictures: Path | None = None,
) -> Checked:  # fmt: skip
    """Predict the score of `csv`, by default of the newest CSV, bring the ledger up to date and compare.

    The prediction is in the ledger before Kaggle is asked for scores.  Without access only the ledger is read.
    Waits up to `wait` seconds for scores.  `pictures` is the folder for figures of the test images.

    Raises:
        NetworkError: Kaggle did not reply; `log` has the ledger's state.
        MissingInput: pictures need preprocessed data.
        BadData: the ledger is damaged; `csv` is not a valid submission, or its saved probabilities are damaged;
            the images for the pictures have changed.
    """
    path, known = paths.submissions / ledger.NAME, competition(slug)
    csvs, entries = submissions.local_csvs(paths.submissions, slug), ledger.read(path)
    local, digest, assessment, not_assessed = None, "", None, None
    try:
        if csv is not None and csv not in [each.path for each in csvs]:
            csvs = [*csvs, submissions.local_csv(csv, slug)]
        local = next((each for each in csvs if each.path == csv), None) or submissions.default_csv(csvs, paths, slug)
        digest = local.sidecar.csv_sha256
        log(f"check: {local.path}, run {printable(local.sidecar.run)}")
        assessment, entries = assess_and_record(path, local, csvs, entries, known)
    except (BadData, MissingInput) as error:
        not_assessed = str(error)
        if csv is not None:
            if not isinstance(error, submissions.NotOurs):
                raise
            submission_format.validate(csv, Processed.open(paths.processed / slug).array("hidden_ids"))
            digest, not_assessed = FileRecord.of(csv).sha256, f"{error}, so its score cannot be predicted"
    listed, not_asked = _ask(kaggle, slug, entries, wait, log)
    before, entries = len(entries), sync(path, entries, listed, csvs, slug)
    if assessment and len(entries) > before:  # other CSVs' scores help to predict this one's
        assessment, entries = assess_and_record(path, assessment.csv, csvs, entries, known)
    advice = advise(assessment, csvs, entries, paths) if assessment else []
    drawn = _draw(assessment, paths, pictures) if assessment and pictures else []
    if pictures and not assessment:
        log(f"check: no pictures: {not_assessed}")
    facts: Mapping[str, Any] = {}
    with suppress(BadData):  # without what preprocess found out less is known
        manifest = Manifest.read(paths.processed / slug)
        facts = manifest.facts if manifest else {}
    states = ledger.current(entries, slug)
    candidates = [e for e in states if csv is None or e.csv_sha256 == digest]
    newest = max(candidates, key=lambda e: (e.gap_public is not None, e.public is not None, e.ref or 0), default=None)
    optimistic = {each.sidecar.csv_sha256: each.sidecar.validation_set == "test_batch" for each in csvs}
    return Checked(
        known, states, ledger.predictions(entries, slug), newest,
        optimistic.get(newest.csv_sha256) if newest else None, facts, local.path if local else csv,
        local.sidecar if local else None, assessment, advice, not_assessed, not_asked, drawn,
    )  # fmt: skip


def _ask(
    kaggle: Kaggle, slug: str, entries: Sequence[Entry], wait: float, log: Log
) -> tuple[list[Submission], str | None]:
    """All submissions, once none is being scored or after `wait` seconds; or why Kaggle does not list them."""
    end = time.monotonic() + wait
    try:
        credentials.require(kaggle.environ)
        with working("asking Kaggle"):
            listed = {submission.ref: submission for submission in kaggle.submissions(slug)}
        pending = [ref for ref, submission in listed.items() if submission.status == "PENDING"]
        if wait and pending:
            log(f"check: being scored, waiting for up to {duration(wait)}")
        while pending and time.monotonic() < end:
            kaggle.sleep(POLL)
            listed |= {ref: kaggle.submission(slug, ref) or listed[ref] for ref in pending}
            pending = [ref for ref in pending if listed[ref].status == "PENDING"]
    except (AccessDenied, UsageError) as error:  # also of a team that is not in the competition
        return [], str(error)
    except NetworkError:
        if states := ledger.current(entries, slug):
            log(submission_table(states, ledger.predictions(entries, slug)))
        raise
    return list(listed.values()), None


def _draw(assessment: Assessment, paths: Paths, folder: Path) -> list[Path]:
    from pipeline.reporting import figures  # noqa: PLC0415 - matplotlib takes a second to import

    drawn = figures.hidden(*figures.open_images(assessment, paths))
    return figures.write(drawn, folder, assessment.csv.path.stem)


def screen(checked: Checked, paths: Paths, verbose: bool) -> list[str]:
    """The prediction or score, its cause and what to do, a line each; `verbose`: everything."""
    slug, csv, assessed = checked.competition.slug, checked.csv, checked.assessment
    lines = [f"no scores from Kaggle: {checked.not_asked}"] if checked.not_asked else []
    if verbose and checked.submissions:
        lines += [submission_table(checked.submissions, checked.predictions), *_history(checked)]
    lines += [f"picture {path}" for path in checked.pictures]
    if assessed is not None:
        lines += [assessed.headline, f"cause: {assessed.cause}"]
        lines += assessed.details if verbose else assessed.doubts[:1]
    elif csv is None or checked.sidecar:
        lines.append(f"no prediction: {checked.not_assessed}")
    else:
        lines.append(f"{csv} is a valid submission to {slug}; no prediction: {checked.not_assessed}")
        if checked.newest is None or not checked.newest.ref:
            lines.append(f"next: {commands.command('submit', slug, paths, '--csv', str(csv), '--competition', slug)}")
    if checked.sidecar and not checked.sidecar.submittable:
        lines.append(f"{csv} cannot be submitted: its model is over the parameter limit")
    advice = [f"{'or' if k else 'next'}: {each}" for k, each in enumerate(checked.advice)]
    return lines + advice[: None if verbose else 1]


def _history(checked: Checked) -> Iterator[str]:
    """The latest gap against sampling noise, and the prediction errors so far."""
    if noise := checked.noise:
        size = "larger than chance" if noise["exceeds"] else "within chance"
        yield f"latest gap: {size} (±{noise['limit']:.2f} points, 95%)"
    if errors := [abs(each["error"]) for each in checked.predicted if each["error"] is not None]:
        yield f"prediction error so far: {sum(errors) / len(errors):.2f} points (n={len(errors)})"


def submission_table(entries: Sequence[Entry], predictions: Mapping[str, Entry]) -> str:
    """The newest SHOWN submissions, a line each."""
    shown = entries[-SHOWN:]
    rows = [
        (*row, status + "*" * bool(entry.note))
        for (*row, status), entry in zip(ledger.rows(shown, predictions), shown, strict=True)
    ]
    notes = [f"* {entry.ref or '-'}: {printable(entry.note)}" for entry in shown if entry.note]
    older = len(entries) - len(shown)
    left_out = [f"... and {older:,} older ones, in {ledger.NAME} and with --json"] if older else []
    return "\n".join([*left_out, *table(ledger.HEAD, rows), *notes])


@cli.stage_command("""
python -m pipeline.check                             the default competition
python -m pipeline.check --csv submissions/sub.csv   that CSV
python -m pipeline.check --json                      for programs; accuracies in per cent
python -m pipeline.check --pictures submissions      and figures of the test set
python -m pipeline.check --fail-over 12              exit code 1 if the gap exceeds 12 points
""")
@cli.competition
@cli.csv("The CSV to assess; by default the newest of what train finished last, a run or all seeds.")
@cli.as_json
@cli.verbose
@click.option("--fail-over", metavar="POINTS", type=cli.Finite(min=-100, max=100),
              help="Exit with code 1 if the latest gap exceeds POINTS.")  # fmt: skip
@cli.wait(30, "a submission that is being scored")
@click.option("--pictures", metavar="FOLDER", type=cli.FOLDER,
              help="Draw into FOLDER the most unusual and least confident test images, and the distributions of the "
              "predictions.")  # fmt: skip
@cli.timeout
@cli.processed
@cli.models
@cli.submissions
def command(
    slug: str, csv: Path | None, as_json: bool, verbose: bool, fail_over: float | None, wait: float,
    pictures: Path | None, timeout: float, paths: Paths,
) -> None:  # fmt: skip
    """Predict the score of a CSV, compare it with Kaggle's, and update the ledger."""
    kaggle = Kaggle(timeout=timeout, log=console.log)
    checked = check(slug, paths, kaggle, console.log, csv=csv, wait=wait, pictures=pictures)
    lines = [json.dumps(checked.to_dict(), indent=2)] if as_json else screen(checked, paths, verbose)
    console.show("\n".join(lines))
    if fail_over is None:
        return
    newest = checked.newest
    if newest is None or newest.gap_public is None:
        raise PipelineError("--fail-over: no submission of a CSV from here has a score yet, so there is no gap")
    if newest.gap_public > fail_over:
        raise PipelineError(f"the gap of {newest.gap_public:.2f} points is over --fail-over {fail_over:g}")


main = partial(cli.run, command, "check")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
