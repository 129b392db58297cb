"""Whether the embedded rehearsal shows what it is meant to, over training seeds and over draws of its digits.

    OMP_NUM_THREADS=1 python tests/bench/rehearsal.py [--seeds 20] [--draws] [--keep FOLDER] [--json]

Preset rehearsal is trained with each seed on the embedded competition, and each CSV is assessed on its own: the
stages' own functions, without Kaggle's client.  `--draws` splits and draws the digits by each seed, too.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import Competition, Paths
from pipeline.console import table
from pipeline.gap.assessment import assess
from pipeline.predict import predict
from pipeline.preprocess import preprocess
from pipeline.recipes import PRESETS
from pipeline.rehearsal import digits
from pipeline.rehearsal.state import Truth, score
from pipeline.store import submissions
from pipeline.train import train
from tests.bench import side_by_side


def silent(line: str) -> None:
    """The stages' log."""


def rehearse(seed: int, place: Path) -> dict[str, Any]:
    """The figures of a training seed, in per cent; `gain` is what the mitigation brings in its trial, in points."""
    slug, paths = digits.SLUG, Paths(*(place / name for name in ("raw", "processed", "models", "submissions")))
    place.mkdir(parents=True, exist_ok=True)
    digits.write(paths.raw / slug, place / "labels.csv")
    preprocess(slug, paths, silent)
    run = train(dataclasses.replace(PRESETS["rehearsal"], seed=seed), paths, slug, log=silent)
    csv = predict(paths, silent, names=[run.name], force=True).path
    made = assess(submissions.local_csv(csv, slug), [], [], Competition(slug))
    found, outcome = made.findings, score(csv.read_bytes(), Truth.read(place / "labels.csv"))
    values = {"holdout": made.csv.sidecar.test_accuracy / 100, "predicted": made.forecast.predicted}
    values |= dict(zip(("low", "high"), made.forecast.interval, strict=True))
    values |= {"public": float(outcome.public), "private": float(outcome.private)}
    values["gain"] = sum(trial.after - trial.before for trial in found.trials if trial.mitigation == found.mitigation)
    points = {name: round(100 * value, 2) for name, value in values.items()}
    return {"seed": seed, **points, "mitigation": found.mitigation, "diagnosis": found.diagnosis.reason}


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--draws", action="store_true", help="of the digits, too")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where runs stay, and are found; else nowhere")
    arguments, rows = parser.parse_args(), []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            digits.SEED = seed * arguments.draws
            rows.append(rehearse(seed, (arguments.keep or Path(scratch)) / str(digits.SEED)))
            print(*rows[-1].values(), file=sys.stderr, flush=True)
    means = {
        name: np.mean([row[name] for row in rows]) for name in ("holdout", "predicted", "public", "private", "gain")
    }
    means["covered"] = np.mean([row["low"] <= row["public"] <= row["high"] for row in rows])
    lines = table(tuple(rows[0]), [[str(value) for value in row.values()] for row in rows])
    side_by_side.report(arguments.json, {**means, "seeds": rows}, [*lines, *(f"{n} {v:.2f}" for n, v in means.items())])


if __name__ == "__main__":
    main()
