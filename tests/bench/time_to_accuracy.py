"""Seconds and accuracy of whole runs: of each preset over several seeds, on real images.

    PIPELINE_PROCESSED=DIR python tests/bench/time_to_accuracy.py --competition SLUG [--preset P...] [--seeds N...]

DIR is a folder of preprocessed data (data/processed after `python -m pipeline.preprocess`).  Seconds are those of
training and validation, without the start; accuracies are on test_batch in per cent, plain and with TTA: six views
(flip-shift), where the preset learns from mirror images.  `ratio` is the share of runs that reach --target with TTA.
Runs are kept in --models and found complete the next time.  Further options are train's: for example `--seeds 0
--preset rehearsal --epochs 4 --cutmix 1` measures what CutMix brings on a small budget.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline import train
from pipeline.console import table
from pipeline.recipes import PRESETS
from pipeline.store import runs
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.training import inference
from pipeline.training.device import choose
from tests.bench import side_by_side

KEYS = ("seconds", "accuracy", "with_tta")


def measured(run: Run, data: Processed, device: str) -> dict[str, float]:
    """What a run took, and its accuracy alone and with TTA."""
    with_tta = accuracy = run.result.test_accuracy
    if run.card.config.flip != "none":
        panel = inference.Panel(inference.load([run], choose(device)), "flip-shift", 512)
        with_tta = 100 * inference.predict_holdout(Ensemble((run,)), panel, data)[0].accuracy
    return {"seed": run.card.config.seed, "seconds": run.result.seconds, "accuracy": accuracy, "with_tta": with_tta}


def main() -> None:
    """Train, and print each run's figures, their mean and their standard deviation."""
    parser = side_by_side.parser(__doc__, device=True)
    parser.add_argument("--competition", required=True, metavar="SLUG", help="a folder below $PIPELINE_PROCESSED")
    parser.add_argument("--models", type=Path, default=Path("data/models"), help="where the runs go")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["fast"], help="(default: fast)")
    parser.add_argument("--seeds", nargs="+", default=[*"01234"], help="(default: 0 1 2 3 4)")
    parser.add_argument("--target", type=float, default=94.0, help="accuracy in per cent (default: 94)")
    arguments, options = parser.parse_known_args()
    processed = side_by_side.processed()
    data = Processed.open(processed / arguments.competition)
    options += ["--competition", arguments.competition, "--device", arguments.device]
    options += ["--processed", str(processed), "--models", str(arguments.models), "--seeds", *arguments.seeds]
    presets: dict[str, dict[str, Any]] = {}
    shown = []
    for preset in arguments.preset:
        with redirect_stdout(sys.stderr):
            if code := train.main([*options, "--preset", preset]):
                raise SystemExit(code)
        finished = [Run.open(arguments.models, name) for name in runs.all_latest(arguments.models)]
        rows = [measured(run, data, arguments.device) for run in finished]
        summary = {"mean": {key: mean(row[key] for row in rows) for key in KEYS}}
        if len(rows) > 1:
            summary["sd"] = {key: stdev(row[key] for row in rows) for key in KEYS}
        presets[preset] = {"seeds": rows, **summary}
        named = [*((str(row["seed"]), row) for row in rows), *summary.items()]
        shown += [[preset, name, *(f"{values[key]:.2f}" for key in KEYS)] for name, values in named]
    reached = [row["with_tta"] >= arguments.target for each in presets.values() for row in each["seeds"]]
    result = {"ratio": mean(reached), "target": arguments.target, "presets": presets, "options": options}
    side_by_side.report(arguments.json, result, table(["preset", "seed", *KEYS], shown, left=(0,)))


if __name__ == "__main__":
    main()
