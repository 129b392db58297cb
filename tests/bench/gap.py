"""How well the gap is foretold, diagnosed and closed.

    PIPELINE_PROCESSED=DIR python tests/bench/gap.py --competition SLUG --run A --others B C [--seeds 101] [--json]
    PIPELINE_PUBLISHED=FILE.npz python tests/bench/gap.py

On stand-ins for a hidden set (tests/bench/stand_ins.py), made of the labelled test_batch.  In its place, run A is
judged by its validation split, which no stand-in contains.  The runs B, C ... find out which images are hard, for the
natural sets, and give aline the pairs it needs.  For each set: accuracy, the diagnosis and prediction of the CSV that
`predict` would write, and the accuracy after each closing measure, in per cent.  `ratio` is the median error of the
predictions against that of taking local accuracy itself.

On published predictions (tests/bench/published.py): `ratio` is the mean absolute error of aline over three networks
against that of local accuracy itself.
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import Competition
from pipeline.gap.adapt import predict_hidden
from pipeline.gap.assessment import assess
from pipeline.gap.estimators import accuracy
from pipeline.gap.forecast import Forecast
from pipeline.store.processed import ArrayName, Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import LocalCsv, Outputs, Sidecar
from pipeline.training import inference
from pipeline.training.batches import split
from pipeline.training.device import choose
from pipeline.training.inference import Panel
from tests.bench import published, side_by_side
from tests.bench.stand_ins import CLASSES, SampledSet, stand_ins

BATCH = 500
DAMAGED = ("corruption", "preprocessing")


@dataclass(frozen=True)
class InMemory(Processed):
    """A folder of arrays, some of which were exchanged."""

    exchanged: dict[str, NDArray[Any]] = dataclasses.field(default_factory=dict)

    def array(self, name: ArrayName) -> NDArray[Any]:
        """The exchanged array, or the folder's."""
        return self.exchanged[name] if name in self.exchanged else super().array(name)


@dataclass(frozen=True)
class Bench:
    """The scored run, the others, and where they are judged."""

    panel: Panel
    others: Sequence[Panel]
    data: Processed
    local: InMemory  # with the run's validation split in the place of the test_batch
    said: Outputs  # there
    scratch: Path

    @classmethod
    def open(cls, arguments: Any, scratch: Path) -> "Bench":
        """From the command line."""
        data = Processed.open(side_by_side.processed() / arguments.competition)
        device = choose(arguments.device)
        runs = [Run.open(arguments.models, name) for name in (arguments.run, *arguments.others)]
        panel, *others = (Panel(inference.load([run], device), "none", BATCH) for run in runs)
        labels = np.asarray(data.array("train_labels"))
        rows = split(labels, runs[0].card.config).validation
        if rows is None:
            raise SystemExit(f"run {runs[0].name} has no validation split: train it with --validation split")
        exchanged = {"test_images": np.asarray(data.array("train_images")[rows]), "test_labels": labels[rows]}
        local = InMemory(data.folder, data.manifest, exchanged)
        said = _together([panel, *others], local, "test_images", labels[rows])
        return cls(panel, others, data, local, said, scratch)

    def sets(self, seed: int, size: int) -> Iterator[SampledSet]:
        """The stand-ins of a seed."""
        truth = np.asarray(self.data.array("test_labels"))
        hard = [
            1
            - inference.predict(other, self.data, "test_images", np.arange(len(truth))).probabilities[
                np.arange(len(truth)), truth
            ]
            for other in self.others
        ]
        hardness = np.mean(hard, axis=0) if hard else np.full(len(truth), 1 / CLASSES)
        yield from stand_ins(truth, hardness, size, seed)

    def assess(self, stand_in: SampledSet) -> dict[str, Any]:
        """All figures of one set."""
        images = np.ascontiguousarray(stand_in.images(np.asarray(self.data.array("test_images"))))
        truth = np.asarray(self.data.array("test_labels"))[stand_in.rows]
        hidden: dict[str, NDArray[Any]] = {"hidden_images": images, "hidden_ids": np.arange(len(images))}
        data = dataclasses.replace(self.local, exchanged=self.local.exchanged | hidden)
        plain = accuracy(self.panel.probabilities(images), truth)
        norms = accuracy(self.panel.adapted(images, self.local.array("test_images")).probabilities(images), truth)
        evidence, found = predict_hidden(
            self.panel, data, "auto", lambda line: None, test=self.said, validation=None, recorded=None
        )
        csv = self._csv(data, evidence, truth)
        after = float((evidence.hidden.labels == truth).mean())
        forecast = assess(csv, [], [], Competition("stand-in")).forecast
        return {
            "set": stand_in.name,
            "right": stand_in.verdict,
            "verdict": found.diagnosis.verdict,
            "reason": found.diagnosis.reason,
            "plain": 100 * plain,
            "measure": found.mitigation,
            "accuracy": 100 * after,
            "norms": 100 * norms,
            **_figures(forecast),
        }

    def _csv(self, data: Processed, evidence: Any, truth: NDArray[np.integer]) -> LocalCsv:
        """As if predict had written it: with the labels of all runs, as if their CSVs lay beside it."""
        members = _together([self.panel, *self.others], data, "hidden_images", truth).members
        path = self.scratch / "stand-in.csv"
        said = dataclasses.replace(evidence.hidden, members=members)
        dataclasses.replace(evidence, csv_sha256="s", hidden=said).write(path)
        card = Sidecar("stand-in", "run", "s", len(truth), "w", "h", None, "split", 0.0, "", {})
        return LocalCsv(path, 0, card)


def _together(panels: Sequence[Panel], data: Processed, name: ArrayName, truth: NDArray[np.integer]) -> Outputs:
    """What the first says, with the labels that each of them gives."""
    rows = np.arange(len(truth))
    said = [inference.predict(panel, data, name, rows, truth.astype(np.int64)) for panel in panels]
    return dataclasses.replace(said[0], members=np.concatenate([one.members for one in said]))


def _figures(forecast: Forecast) -> dict[str, Any]:
    low, high = forecast.interval
    methods = {name: 100 * value for name, value in forecast.methods.items()}
    return {
        "predicted": 100 * forecast.predicted, "low": 100 * low, "high": 100 * high, "by": forecast.by,
        "reliable": forecast.reliable, "methods": methods, "refused": dict(forecast.refused),
    }  # fmt: skip


def main() -> None:
    """Mitigation and print."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("--competition", metavar="SLUG", help="a folder below $PIPELINE_PROCESSED")
    parser.add_argument("--models", type=Path, default=Path("data/models"), help="where the runs are")
    parser.add_argument("--run", help="the run that is judged")
    parser.add_argument("--others", nargs="*", default=[], help="other runs, for hardness and agreement")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101], help="of the stand-ins (default: 101)")
    parser.add_argument("--size", type=int, default=2000, help="images of a stand-in (default: 2,000)")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--sets", type=int, default=300, help="random sets of published networks of each size")
    arguments = parser.parse_args()
    if arguments.run is None:
        file = os.environ.get("PIPELINE_PUBLISHED")
        if not file:
            raise SystemExit("name a --run, or set PIPELINE_PUBLISHED; see this file's docstring")
        side_by_side.report(arguments.json, *published.measure(Path(file), arguments.sets))
        return
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench.open(arguments, Path(scratch))
        local = 100 * inference.accuracy(bench.said.labels, bench.said)
        rows = []
        for seed in arguments.seeds:
            for stand_in in bench.sets(seed, arguments.size):
                rows.append(bench.assess(stand_in) | {"seed": seed})
                print(line(rows[-1]), file=sys.stderr, flush=True)
    summary = summarise(rows, local)
    side_by_side.report(arguments.json, {**summary, "sets": rows}, [HEAD, *map(line, rows), "", *told(summary)])


HEAD = (
    f"{'set':24}{'accuracy':>9}{'verdict':>15}{'measure':>9}{'then':>7}{'norms':>7}"
    f"{'predicted':>11}{'90 %':>15}{'by':>11}"
)


def line(row: dict[str, Any]) -> str:
    """A set, for people."""
    wrong = "" if row["verdict"] == row["right"] else "!"
    inside = "" if row["low"] <= row["accuracy"] <= row["high"] else "!"
    return (
        f"{row['set']:24}{row['plain']:9.1f}{row['verdict'] + wrong:>15}{row['measure']:>9}{row['accuracy']:7.1f}"
        f"{row['norms']:7.1f}{row['predicted']:11.1f}{row['low']:8.1f} {row['high']:5.1f}{inside:1}{row['by']:>11}"
    )


def summarise(rows: Sequence[dict[str, Any]], local: float) -> dict[str, Any]:
    """What is to be reached; points and shares."""
    errors = np.array([abs(row["predicted"] - row["accuracy"]) for row in rows])
    naive = np.array([abs(local - row["accuracy"]) for row in rows])
    corrupted = [row for row in rows if row["right"] == "corruption" and local - row["plain"] > 5]
    recovered = [(row["norms"] - row["plain"]) / (local - row["plain"]) for row in corrupted]
    kinds = sorted({row["right"] for row in rows} | {row["verdict"] for row in rows})
    control = [row for row in rows if row["right"] == "none"]
    reliable = np.array([row["reliable"] for row in rows])
    return {
        "ratio": float(np.median(errors) / np.median(naive)),
        "local": local,
        "median_error": float(np.median(errors)),
        "mean_error": float(errors.mean()),
        "median_error_reliable": float(np.median(errors[reliable])) if reliable.any() else None,
        "coverage": float(np.mean([row["low"] <= row["accuracy"] <= row["high"] for row in rows])),
        "verdicts_right": float(np.mean([row["verdict"] == row["right"] for row in rows])),
        "control_shifted": float(np.mean([row["verdict"] != "none" for row in control])) if control else None,
        "norms_recover": float(np.median(recovered)) if recovered else None,
        "norms_on_natural": sum(row["measure"] == "bn" for row in rows if row["right"] == "natural"),
        "confusion": {
            right: {said: sum(r["right"] == right and r["verdict"] == said for r in rows) for said in kinds}
            for right in kinds
        },
    }


def told(summary: dict[str, Any]) -> list[str]:
    """The summary, for people."""
    confusion = summary["confusion"]
    kinds = list(confusion)
    return [
        f"local {summary['local']:.2f} %; error: median {summary['median_error']:.2f}, mean "
        f"{summary['mean_error']:.2f} points; ratio {summary['ratio']:.2f}",
        f"90 % intervals cover {100 * summary['coverage']:.0f} %; "
        f"verdicts right {100 * summary['verdicts_right']:.0f} %",
        f"norms recover {100 * (summary['norms_recover'] or 0):.0f} % of a corruption's gap (median); adopted on "
        f"{summary['norms_on_natural']} natural sets; control called shifted: {summary['control_shifted']}",
        "",
        f"{'is / said':15}" + "".join(f"{kind:>15}" for kind in kinds),
        *(f"{right:15}" + "".join(f"{confusion[right][said]:15d}" for said in kinds) for right in kinds),
    ]


if __name__ == "__main__":
    main()
