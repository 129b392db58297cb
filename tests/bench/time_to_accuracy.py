"""How long until 94 % and 96 %: full runs of a preset over several seeds, on real images.

    PIPELINE_PROCESSED=DIR python tests/bench/time_to_accuracy.py --competition SLUG [--preset P] [--seeds N] [--json]

DIR is a folder of preprocessed data (data/processed after `python -m pipeline.preprocess`).  Seconds are those of
training at the speed of the median epoch, so without start, compilation and validation; accuracies are on
test_batch, without and with --tta flip-shift.  `ratio` is the share of seeds that reach --target.  Runs are kept in
--models and found complete the next time.
"""

import dataclasses
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import Paths
from pipeline.recipes import PRESETS, TrainConfig
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.train import train
from pipeline.training import inference
from pipeline.training.device import choose
from tests.bench import side_by_side


def with_views(run: Run, data: Processed, device: str) -> float:
    """Accuracy on test_batch in per cent with six views an image."""
    panel = inference.Panel(inference.load([run], choose(device)), "flip-shift", 512)
    ensemble = Ensemble((run,))
    return inference.holdout_scores(ensemble, *inference.predict_holdout(ensemble, panel, data)).test


def main() -> None:
    """Train, and print each seed's figures and their mean."""
    parser = side_by_side.training_parser(__doc__)
    parser.add_argument("--preset", choices=list(PRESETS), default="fast", help="network and recipe (default: fast)")
    parser.add_argument("--epochs", type=int, help="passes over the images (default: the preset's)")
    parser.add_argument("--seeds", type=int, default=5, help="runs (default: 5)")
    parser.add_argument("--target", type=float, default=94.0, help="accuracy in per cent (default: 94)")
    arguments = parser.parse_args()
    paths = Paths(processed=side_by_side.processed(), models=arguments.models)
    data = Processed.open(paths.processed / arguments.competition)
    rows = []
    for seed in range(arguments.seeds):
        run = train(_config(arguments.preset, arguments.epochs, seed), paths, arguments.competition,
                    device=arguments.device, log=lambda line: None)  # fmt: skip
        seconds = run.result.epochs * _images(data, run) / run.result.images_per_second
        plain, views = run.result.test_accuracy, with_views(run, data, arguments.device)
        rows.append({"seed": seed, "seconds": seconds, "accuracy": plain, "with_tta": views})
    reached = sum(row["with_tta"] >= arguments.target for row in rows) / len(rows)
    lines = [f"{'seed':>5}{'seconds':>10}{'accuracy':>10}{'with TTA':>10}"]
    lines += [f"{r['seed']:5}{r['seconds']:10.1f}{r['accuracy']:10.2f}{r['with_tta']:10.2f}" for r in rows]
    means = {key: statistics.mean(row[key] for row in rows) for key in ("seconds", "accuracy", "with_tta")}
    lines.append(f"{'mean':>5}{means['seconds']:10.1f}{means['accuracy']:10.2f}{means['with_tta']:10.2f}")
    result = {"ratio": reached, "target": arguments.target, "mean": means, "seeds": rows, "preset": arguments.preset}
    side_by_side.report(arguments.json, result, lines)


def _config(preset: str, epochs: int | None, seed: int) -> TrainConfig:
    config = PRESETS[preset] if epochs is None else PRESETS[preset].with_epochs(epochs)
    return dataclasses.replace(config, seed=seed)


def _images(data: Processed, run: Run) -> int:
    """Training images of the run."""
    rows = len(data.array("train_labels"))
    return rows if run.result.optimistic else rows - run.result.validation_rows


if __name__ == "__main__":
    main()
