"""What each option of train changes, on one short common budget.

    PIPELINE_PROCESSED=DIR python tests/bench/options.py --competition SLUG [--epochs 4] [--seeds 1] [--json]

The base is preset `rehearsal`'s small network with the paper's recipe (Adam, crop with padding 4, flip) over few
epochs; each row changes what its flags say, and nothing else.  Figures are accuracies on test_batch in per cent.  A
short budget flatters what speeds learning up and is unfair to regularisers, which need long runs: read them as "takes
effect", not as advice.  `ratio` is the best row's accuracy over the base's.  Runs are found complete the next time.
"""

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.config import Paths
from pipeline.recipes import MODELS, PRESETS, TrainConfig
from pipeline.train import train
from tests.bench import side_by_side

ROWS: dict[str, dict[str, Any]] = {
    "(base)": {},
    "--optimizer sgd --learning-rate 0.1": {"optimizer": "sgd", "learning_rate": 0.1},
    "--optimizer adamw": {"optimizer": "adamw"},
    "--optimizer rmsprop": {"optimizer": "rmsprop"},
    "--schedule cosine": {"schedule": "cosine"},
    "--schedule step": {"schedule": "step"},
    "--schedule one-cycle --warmup-epochs 1.2": {"schedule": "one-cycle", "warmup_epochs": 1.2},
    "--weight-decay 0": {"weight_decay": 0.0},
    "--no-decay-norms": {"decay_norms": False},
    "--label-smoothing 0": {"label_smoothing": 0.0},
    "--dropout 0.2": {"dropout": 0.2},
    "--ema-decay 0.99": {"ema_decay": 0.99},
    "--crop-padding 0": {"crop_padding": 0},
    "--flip none": {"flip": "none"},
    "--flip alternating": {"flip": "alternating"},
    "--cutout 8": {"cutout": 8},
    "--mixup 0.2": {"mixup": 0.2},
    "--cutmix 1": {"cutmix": 1.0},
    "--ricap 0.3": {"ricap": 0.3},
    "--policy trivialaugment": {"policy": "trivialaugment"},
    "--se 8": {"model": dataclasses.replace(MODELS["rehearsal"], se=8)},
}


def main() -> None:
    """Train each row, and print the table."""
    parser = side_by_side.training_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=4, help="passes over the images (default: 4)")
    parser.add_argument("--seeds", type=int, default=1, help="runs a row (default: 1)")
    arguments = parser.parse_args()
    paths = Paths(processed=side_by_side.processed(), models=arguments.models)
    base = dataclasses.replace(PRESETS["rehearsal"], flip="random", crop_padding=4).with_epochs(arguments.epochs)
    found: dict[str, list[float]] = {}
    for flags, change in ROWS.items():
        for seed in range(arguments.seeds):
            config: TrainConfig = dataclasses.replace(base, **change, seed=seed)
            run = train(config, paths, arguments.competition, device=arguments.device, log=lambda line: None)
            found.setdefault(flags, []).append(run.result.test_accuracy)
    means = {flags: statistics.mean(values) for flags, values in found.items()}
    plain = means["(base)"]
    lines = [f"{'flags':42}{'test':>8}{'effect':>8}"]
    lines += [f"{flags:42}{mean:8.2f}{mean - plain:+8.2f}" for flags, mean in means.items()]
    result = {"ratio": max(means.values()) / plain, "accuracy": found, "epochs": arguments.epochs}
    side_by_side.report(arguments.json, result, lines)


if __name__ == "__main__":
    main()
