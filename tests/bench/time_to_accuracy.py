"""How long until 94 % and 96 %: full runs of a preset over several seeds, on real images.

    PIPELINE_PROCESSED=DIR python tests/bench/time_to_accuracy.py --competition SLUG [--seeds N] [--json] [...]

DIR is a folder of preprocessed data (data/processed after `python -m pipeline.preprocess`).  Seconds are those of
training at the speed of the median epoch, so without start, compilation and validation; accuracies are on
test_batch, without and with --tta flip-shift.  `ratio` is the share of seeds that reach --target.  Runs are kept in
--models and found complete the next time.  Further options are train's: for example
`--seeds 1 --preset rehearsal --epochs 4 --cutmix 1` measures what CutMix brings on a small budget.
"""

import statistics
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline import train
from pipeline.console import table
from pipeline.recipes import PRESETS
from pipeline.store.ensemble import Ensemble
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.training import inference
from pipeline.training.device import choose
from tests.bench import side_by_side


def with_views(run: Run, data: Processed, device: str) -> float:
    """Accuracy on test_batch in per cent with six views an image."""
    panel = inference.Panel(inference.load([run], choose(device)), "flip-shift", 512)
    ensemble = Ensemble((run,))
    return inference.holdout_scores(ensemble, *inference.predict_holdout(ensemble, panel, data)).test_batch


def main() -> None:
    """Train, and print each seed's figures and their mean."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("--competition", required=True, metavar="SLUG", help="a folder below $PIPELINE_PROCESSED")
    parser.add_argument("--models", type=Path, default=Path("data/models"), help="where the runs go")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--preset", choices=list(PRESETS), default="fast", help="network and recipe (default: fast)")
    parser.add_argument("--seeds", type=int, default=5, help="runs (default: 5)")
    parser.add_argument("--target", type=float, default=94.0, help="accuracy in per cent (default: 94)")
    arguments, options = parser.parse_known_args()
    processed = side_by_side.processed()
    data = Processed.open(processed / arguments.competition)
    options += ["--competition", arguments.competition, "--preset", arguments.preset, "--device", arguments.device]
    options += ["--processed", str(processed), "--models", str(arguments.models)]
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        with redirect_stdout(sys.stderr):
            if code := train.main([*options, "--seed", str(seed)]):
                raise SystemExit(code)
        run = Run.open(arguments.models, None)
        images = len(data.array("train_labels")) - (0 if run.result.optimistic else run.result.validation_rows)
        seconds = run.result.epochs * images / run.result.images_per_second
        plain, views = run.result.test_accuracy, with_views(run, data, arguments.device)
        rows.append({"seed": seed, "seconds": seconds, "accuracy": plain, "with_tta": views})
    reached = sum(row["with_tta"] >= arguments.target for row in rows) / len(rows)
    means = {key: statistics.mean(row[key] for row in rows) for key in ("seconds", "accuracy", "with_tta")}
    shown = [[str(row["seed"]), *(f"{row[key]:.2f}" for key in means)] for row in [*rows, {"seed": "mean", **means}]]
    lines = table(["seed", *means], shown)
    result = {"ratio": reached, "target": arguments.target, "mean": means, "seeds": rows, "options": options}
    side_by_side.report(arguments.json, result, lines)


if __name__ == "__main__":
    main()
