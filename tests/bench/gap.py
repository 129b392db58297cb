"""How well the gap is predicted, diagnosed and closed.

    PIPELINE_PROCESSED=DIR python tests/bench/gap.py --competition SLUG --run A --others B C [--seeds 101] [--json]
    PIPELINE_PUBLISHED=FILE.npz python tests/bench/gap.py

On sets whose shift is known (tests/bench/stand_ins.py), made of the labelled test_batch.  In its place, run A is
assessed by its validation split, which no set contains.  The runs B, C ... find out which images are hard, for the
natural sets, and give aline the pairs it needs.  For each set: accuracy, the diagnosis and prediction of the CSV that
`predict` would write, and the accuracy after the mitigation, in per cent.  `ratio` is the median error of the
predictions against that of taking local accuracy itself.

On published predictions (tests/bench/published.py): `ratio` is the mean absolute error of aline over three networks
against that of local accuracy itself.
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import CLASSES, Competition
from pipeline.console import table
from pipeline.gap.assessment import assess
from pipeline.gap.prediction import predict_hidden
from pipeline.store.processed import ArrayName, Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import LocalCsv, Outputs, Sidecar, accuracy
from pipeline.training import inference
from pipeline.training.batches import split
from pipeline.training.device import choose
from pipeline.training.inference import Panel
from tests.bench import published, side_by_side
from tests.bench.stand_ins import SampledSet, stand_ins
from tests.gap.cases import InMemory

BATCH = 500
SIDECAR = Sidecar("stand-in", "run", "s", 0, "w", "h", None, "split", 0.0, "", {})


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
        runs = [Run.open(arguments.models, name) for name in (arguments.run, *arguments.others)]
        panels = [Panel(inference.load([run], device), "none", BATCH) for run in runs]
        labels = np.asarray(data.array("train_labels"))
        rows = split(labels, runs[0].card.config).validation
        if rows is None:
            raise SystemExit(f"run {runs[0].name} has no validation split: train it with --validation split")
        exchanged = {"test_images": np.asarray(data.array("train_images")[rows]), "test_labels": labels[rows]}
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
        data, panel = dataclasses.replace(self.labelled, exchanged=self.labelled.exchanged | hidden), self.panels[0]
        adapted = panel.adapted(images, self.labelled.array("test_images"))
        evidence, findings = predict_hidden(
            panel, data, "auto", lambda line: None, holdout=self.holdout, validation=None, recorded=None
        )
        # As if predict had written the CSV: with the labels of all runs, as if their CSVs lay beside it.
        members = _together(self.panels, data, "hidden_images", truth).members
        outputs = dataclasses.replace(evidence.hidden, members=members)
        dataclasses.replace(evidence, hidden=outputs).write(self.csv, SIDECAR.csv_sha256)
        csv = LocalCsv(self.csv, 0, dataclasses.replace(SIDECAR, rows=len(truth)))
        forecast = assess(csv, [], [], Competition("stand-in")).forecast
        low, high = forecast.interval
        return {
            "set": stand_in.name, "right": stand_in.verdict, "verdict": findings.diagnosis.verdict,
            "reason": findings.diagnosis.reason, "plain": 100 * accuracy(panel.probabilities(images).argmax(1), truth),
            "measure": findings.mitigation, "accuracy": 100 * accuracy(evidence.hidden.labels, truth),
            "bn": 100 * accuracy(adapted.probabilities(images).argmax(1), truth), "predicted": 100 * forecast.predicted,
            "low": 100 * low, "high": 100 * high, "by": forecast.by, "reliable": not forecast.doubts,
            "methods": {name: 100 * value for name, value in forecast.methods.items()},
            "refused": dict(forecast.refused),
        }  # fmt: skip


def _together(panels: Sequence[Panel], data: Processed, name: ArrayName, truth: NDArray[np.integer]) -> Outputs:
    """What the first outputs, with the labels that each of them gives."""
    outputs = [inference.predict(panel, data, name, np.arange(len(truth)), truth.astype(np.int64)) for panel in panels]
    return dataclasses.replace(outputs[0], members=np.concatenate([of.members for of in outputs]))


def main() -> None:
    """Measure and print."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("--competition", metavar="SLUG", help="a folder below $PIPELINE_PROCESSED")
    parser.add_argument("--models", type=Path, default=Path("data/models"), help="where the runs are")
    parser.add_argument("--run", help="the run that is assessed")
    parser.add_argument("--others", nargs="*", default=[], help="other runs, for hardness and agreement")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101], help="of the sets (default: 101)")
    parser.add_argument("--size", type=int, default=2000, help="images of a set (default: 2,000)")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--sets", type=int, default=300, help="random sets of published networks of each size")
    arguments = parser.parse_args()
    if arguments.run is None:
        file = os.environ.get("PIPELINE_PUBLISHED")
        if not file:
            raise SystemExit("name a --run, or set PIPELINE_PUBLISHED; see this file's docstring")
        side_by_side.report(arguments.json, *published.measure(Path(file), arguments.sets))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench.open(arguments, Path(scratch))
        for seed in arguments.seeds:
            for stand_in in bench.sets(seed, arguments.size):
                rows.append(bench.assess(stand_in) | {"seed": seed})
                print(*cells(rows[-1]), file=sys.stderr, flush=True)
    summary = summarise(rows, 100 * accuracy(bench.holdout.labels, bench.holdout.known_truth))
    lines = [*table(HEAD, [cells(row) for row in rows]), "", *(f"{name} {value}" for name, value in summary.items())]
    side_by_side.report(arguments.json, {**summary, "sets": rows}, lines)


HEAD = ("set", "verdict", "measure", "by", "accuracy", "then", "bn", "predicted", "low", "high", "")


def cells(row: dict[str, Any]) -> list[str]:
    """A set; `!` marks a wrong verdict and an interval that misses."""
    wrong, inside = row["verdict"] != row["right"], row["low"] <= row["accuracy"] <= row["high"]
    points = [f"{row[name]:.1f}" for name in ("plain", "accuracy", "bn", "predicted", "low", "high")]
    return [row["set"], row["verdict"] + "!" * wrong, row["measure"], row["by"], *points, "" if inside else "!"]


def summarise(rows: Sequence[dict[str, Any]], local: float) -> dict[str, Any]:
    """What is to be reached; points and shares."""
    errors = np.array([abs(row["predicted"] - row["accuracy"]) for row in rows])
    naive = np.array([abs(local - row["accuracy"]) for row in rows])
    corrupted = [row for row in rows if row["right"] == "corruption" and local - row["plain"] > 5]
    recovered = [(row["bn"] - row["plain"]) / (local - row["plain"]) for row in corrupted]
    control = [row["verdict"] != "none" for row in rows if row["right"] == "none"]
    return {
        "ratio": float(np.median(errors) / np.median(naive)),
        "local": local,
        "median_error": float(np.median(errors)),
        "mean_error": float(errors.mean()),
        "coverage": float(np.mean([row["low"] <= row["accuracy"] <= row["high"] for row in rows])),
        "verdicts_right": float(np.mean([row["verdict"] == row["right"] for row in rows])),
        "control_shifted": float(np.mean(control)) if control else None,
        "bn_recovers": float(np.median(recovered)) if recovered else None,
        "bn_on_natural": sum(row["measure"] == "bn" for row in rows if row["right"] == "natural"),
    }


if __name__ == "__main__":
    main()
