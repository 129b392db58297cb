"""How well the gap is predicted, diagnosed and closed.

    PIPELINE_PROCESSED=DIR python tests/bench/gap.py --competition SLUG --run A --others B C [--seeds 101] [--json]
    python tests/bench/gap.py --merge FILE.json ...
    PIPELINE_PUBLISHED=FILE.npz python tests/bench/gap.py

On sets whose shift is known (tests/bench/stand_ins.py), made of test_batch.  In its place, run A is
assessed by its validation split, which no set contains.  The runs B, C ... find out which images are hard, for the
natural sets, and give aline the pairs it needs.  For each set: accuracy, the diagnosis and prediction of the CSV that
`predict` would write, and the accuracy after the mitigation, in per cent; `alone` is the prediction without B, C ...
`ratio` is the median error of the predictions against that of taking the holdout accuracy itself.  --merge makes one
table of what several processes printed with --json.

On published predictions (tests/bench/published.py): `ratio` is the mean absolute error of aline over three models
against that of the holdout accuracy itself.
"""

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import CLASSES, Competition
from pipeline.console import table
from pipeline.gap.assessment import assess
from pipeline.gap.forecast import ERRORS, Forecast
from pipeline.gap.prediction import predict_hidden
from pipeline.store.ensemble import open_run
from pipeline.store.processed import ArrayName, Processed
from pipeline.store.submissions import Evidence, LocalCsv, Outputs, Sidecar, accuracy
from pipeline.training import inference
from pipeline.training.batches import split
from pipeline.training.device import choose
from pipeline.training.inference import Member, Panel
from tests.bench import published, side_by_side
from tests.bench.stand_ins import SampledSet, stand_ins
from tests.gap.cases import InMemory

BATCH = 500
TRAINING = 2000  # images: near duplicates, which are looked for among them, are not measured here
SIDECAR = Sidecar("simulated", "run", "s", 0, "w", "h", None, "split", 0.0, "", {})


@dataclass(frozen=True)
class Bench:
    """The scored run, the others, and where they are assessed."""

    panels: Sequence[Panel]  # the scored run's first
    data: Processed
    labelled: InMemory  # with the run's validation split in the place of the test_batch
    holdout: Outputs  # there
    csv: Path

    @classmethod
    def open(cls, arguments: Any, scratch: Path) -> "Bench":
        """From the command line."""
        data = Processed.open(side_by_side.processed() / arguments.competition)
        device = choose(arguments.device)
        pretrained = side_by_side.ROOT / "data/pretrained"
        runs = [open_run(arguments.models, pretrained, name) for name in (arguments.run, *arguments.others)]
        # All in the device's precision, whatever agreement with float32 a run has recorded: a third of the time.
        models = [[Member(m.name, m.model, device) for m in inference.load([run], device)] for run in runs]
        panels = [Panel(members, "none", BATCH) for members in models]
        labels = np.asarray(data.array("train_labels"))
        rows = split(labels, runs[0].card.config).validation
        if rows is None:
            raise SystemExit(f"run {runs[0].name} has no validation split: train it with --validation split")
        images = data.array("train_images")
        exchanged = {
            "test_images": np.asarray(images[rows]), "test_labels": labels[rows],
            "train_images": np.asarray(images[:TRAINING]),
        }  # fmt: skip
        holdout = InMemory(data.folder, data.manifest, exchanged)
        return cls(panels, data, holdout, _together(panels, holdout, "test_images", labels[rows]), scratch / "a.csv")

    def sets(self, seed: int, size: int) -> list[SampledSet]:
        """The sets of a seed."""
        truth = np.asarray(self.data.array("test_labels"))
        rows = np.arange(len(truth))
        outputs = [inference.predict(panel, self.data, "test_images", rows) for panel in self.panels[1:]]
        easy = [of.probabilities[rows, truth] for of in outputs] or [np.full(len(truth), 1 - 1 / CLASSES)]
        return list(stand_ins(truth, 1 - np.mean(easy, axis=0), size, seed))

    def assess(self, stand_in: SampledSet) -> dict[str, Any]:
        """All figures of one set."""
        images = np.ascontiguousarray(stand_in.images(np.asarray(self.data.array("test_images"))))
        truth = np.asarray(self.data.array("test_labels"))[stand_in.rows]
        hidden: dict[str, NDArray[Any]] = {"hidden_images": images, "hidden_ids": np.arange(len(images))}
        data = dataclasses.replace(self.labelled, exchanged=self.labelled.exchanged | hidden)
        alone = dataclasses.replace(self.holdout, members=self.holdout.members[:1])
        evidence, findings = predict_hidden(
            self.panels[0], data, "auto", lambda line: None, holdout=alone, validation=None, recorded=None
        )
        # As if the CSVs of the others lay beside the one that predict writes: with the labels of all, as they are.
        members = _together(self.panels, data, "hidden_images", truth).members
        by_one = self._forecast(dataclasses.replace(evidence, hidden=_of(evidence.hidden, members[:1])))
        together = dataclasses.replace(evidence, hidden=_of(evidence.hidden, members), holdout=self.holdout)
        made = self._forecast(together)
        return {
            "set": stand_in.name, "right": stand_in.verdict, "verdict": findings.diagnosis.verdict,
            "reason": findings.diagnosis.reason, "plain": 100 * accuracy(members[0], truth),
            "measure": findings.mitigation, "accuracy": 100 * accuracy(evidence.hidden.labels, truth),
            **_shown(made), "alone": _shown(by_one), "reliable": not made.doubts,
            "methods": {name: 100 * value for name, value in made.methods.items()}, "refused": dict(made.refused),
        }  # fmt: skip

    def _forecast(self, evidence: Evidence) -> Forecast:
        """As if predict had written the CSV."""
        evidence.write(self.csv, SIDECAR.csv_sha256)
        csv = LocalCsv(self.csv, 0, dataclasses.replace(SIDECAR, rows=len(evidence.hidden)))
        return assess(csv, [], [], Competition("simulated", public_rows=len(evidence.hidden))).forecast


def _shown(made: Forecast) -> dict[str, Any]:
    low, high = made.interval
    return {"predicted": 100 * made.predicted, "low": 100 * low, "high": 100 * high, "by": made.by}


def _of(outputs: Outputs, members: NDArray[np.uint8]) -> Outputs:
    return dataclasses.replace(outputs, members=members)


def _together(panels: Sequence[Panel], data: Processed, name: ArrayName, truth: NDArray[np.integer]) -> Outputs:
    """What the first outputs, with the labels that each of them gives."""
    outputs = [inference.predict(panel, data, name, np.arange(len(truth)), truth.astype(np.int64)) for panel in panels]
    return dataclasses.replace(outputs[0], members=np.concatenate([of.members for of in outputs]))


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, device=True)
    parser.add_argument("--competition", metavar="SLUG", help="a folder below $PIPELINE_PROCESSED")
    parser.add_argument("--models", type=Path, default=Path("data/models"), help="where the runs are")
    parser.add_argument("--run", help="the run that is assessed")
    parser.add_argument("--others", nargs="*", default=[], help="other runs, for hardness and agreement")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101], help="of the sets (default: 101)")
    parser.add_argument("--size", type=int, default=2000, help="images of a set (default: 2,000)")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="what --json has printed")
    parser.add_argument("--sets", type=int, default=300, help="random sets of published models of each size")
    arguments = parser.parse_args()
    if arguments.merge:
        parts = [json.loads(file.read_text()) for file in arguments.merge]
        rows, local = [row for part in parts for row in part["sets"]], parts[0]["local"]
    elif arguments.run is None:
        file = os.environ.get("PIPELINE_PUBLISHED")
        if not file:
            raise SystemExit("name a --run, or set PIPELINE_PUBLISHED; see this file's docstring")
        side_by_side.report(arguments.json, *published.measure(Path(file), arguments.sets))
        return
    else:
        rows, local = measured(arguments)
    summary = summarise(rows, local)
    lines = [*table(HEAD, [cells(row) for row in rows]), "", *(f"{name} {value}" for name, value in summary.items())]
    side_by_side.report(arguments.json, {**summary, "sets": rows}, [*lines, "", *by_method(rows)])


def measured(arguments: Any) -> tuple[list[dict[str, Any]], float]:
    """The figures of all sets, and the accuracy on the holdout in per cent."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench.open(arguments, Path(scratch))
        for seed in arguments.seeds:
            for stand_in in bench.sets(seed, arguments.size):
                rows.append(bench.assess(stand_in) | {"seed": seed})
                print(*cells(rows[-1]), file=sys.stderr, flush=True)
    return rows, 100 * accuracy(bench.holdout.labels, bench.holdout.known_truth)


HEAD = ("set", "verdict", "measure", "by", "accuracy", "then", "predicted", "low", "high", "")


def cells(row: dict[str, Any]) -> list[str]:
    """A set; `!` marks a wrong verdict and an interval that misses."""
    points = [f"{row[name]:.1f}" for name in ("plain", "accuracy", "predicted", "low", "high")]
    wrong = "!" * (row["verdict"] != row["right"])
    return [row["set"], row["verdict"] + wrong, row["measure"], row["by"], *points, "" if _inside(row, row) else "!"]


def _inside(row: dict[str, Any], made: dict[str, Any]) -> bool:
    return bool(made["low"] <= row["accuracy"] <= made["high"])


def errors(rows: Sequence[dict[str, Any]], made: Callable[[dict[str, Any]], float | None]) -> NDArray[np.float64]:
    """How far off the estimates are that `made` takes out of each row, in points; None is left out."""
    pairs = [(estimate, row["accuracy"]) for row in rows if (estimate := made(row)) is not None]
    return np.array([abs(estimate - actual) for estimate, actual in pairs])


def by_method(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Median and mean error, and how many sets, of each method on each kind of set; `alone` with one network."""
    kinds = ["all", *dict.fromkeys(row["right"] for row in rows)]
    ways: dict[str, Callable[[dict[str, Any]], float | None]] = {
        "predicted": lambda row: row["predicted"], "alone": lambda row: row["alone"]["predicted"],
        **{name: lambda row, name=name: row["methods"].get(name) for name in ERRORS},  # type: ignore[misc]
    }  # fmt: skip
    lines = []
    for way, made in ways.items():
        found = [errors([row for row in rows if kind in ("all", row["right"])], made) for kind in kinds]
        if len(found[0]):
            points = [f"{np.median(of):.2f} / {of.mean():.2f} ({len(of)})" if len(of) else "-" for of in found]
            lines.append([way, *points])
    return table(("method", *kinds), lines)


def summarise(rows: Sequence[dict[str, Any]], local: float) -> dict[str, Any]:
    """What is to be reached; points and shares."""
    off, naive = errors(rows, lambda row: row["predicted"]), errors(rows, lambda row: local)
    adapted = [row for row in rows if row["measure"] == "bn" and local - row["plain"] > 5]
    recovered = [(row["accuracy"] - row["plain"]) / (local - row["plain"]) for row in adapted]
    control = [row["verdict"] != "none" for row in rows if row["right"] == "none"]
    return {
        "count": len(rows),
        "ratio": float(np.median(off) / np.median(naive)),
        "local": local,
        "median_error": float(np.median(off)),
        "mean_error": float(off.mean()),
        "coverage": float(np.mean([_inside(row, row) for row in rows])),
        "coverage_alone": float(np.mean([_inside(row, row["alone"]) for row in rows])),
        "verdicts_right": float(np.mean([row["verdict"] == row["right"] for row in rows])),
        "control_shifted": float(np.mean(control)) if control else None,
        "bn_recovers": float(np.median(recovered)) if recovered else None,
        "bn_on_natural": sum(row["measure"] == "bn" for row in rows if row["right"] == "natural"),
    }


if __name__ == "__main__":
    main()
