"""All stages one after the other under the eye of a Watch.

    python -m tests.hostile.order_of_stages     in an empty folder

Writes order.json: for each stage its exit code, the final names in the order in which they came, what a power cut could
have spoiled, and for each start of a child process (a call to Kaggle) what the ledger said last and whether a
submission had been made.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline import check, download, predict, preprocess, submit, train
from pipeline.store import ledger
from tests.hostile.disk_order import Watch, watching
from tests.support import SLUG, serve, write_download

REPORT = "order.json"
RUN = "tiny-run"
Main = Callable[[Sequence[str]], int]
_COMPETITION = ("--competition", SLUG)
_TRAINING = ("--preset", "rehearsal", "--epochs", "2", "--batch-size", "20", "--device", "cpu", "--run", RUN)
STAGES: tuple[tuple[str, Main, tuple[str, ...]], ...] = (
    ("download", download.main, _COMPETITION),
    ("preprocess", preprocess.main, _COMPETITION),
    ("preprocess again", preprocess.main, (*_COMPETITION, "--force")),
    ("train", train.main, (*_COMPETITION, *_TRAINING)),
    ("predict", predict.main, ("--device", "cpu")),
    ("submit", submit.main, ("--poll", "0.1")),
    ("check", check.main, _COMPETITION),
)


def main() -> None:
    """Run them in the current folder."""
    place = Path.cwd()
    write_download(place / "source")
    labels = [f"{100 + k},{k % 10}" for k in range(30)]
    (place / "labels.csv").write_text("\n".join(["ID,Labels", *labels]) + "\n")
    with serve(place) as kaggle:
        os.environ |= kaggle.environment
        watch = Watch(place)
        reports = {name: _watched(watch, stage, options, kaggle.count) for name, stage, options in STAGES}
    (place / REPORT).write_text(json.dumps(reports))


def _watched(watch: Watch, stage: Main, options: Sequence[str], count: Callable[[str], int]) -> dict[str, Any]:
    """What the stage did."""
    children: list[tuple[str, int]] = []

    def at_child() -> None:
        watch.everything_is_on_disk("when a child process starts")
        entries = ledger.read(watch.root / "submissions" / ledger.NAME)
        children.append((entries[-1].status if entries else "", count("CreateSubmission")))

    watch.at_child, watch.renamed, watch.violations = at_child, [], []
    with watching(watch):
        code = stage(options)
    watch.everything_is_on_disk("at the end")
    return {"code": code, "renamed": watch.renamed, "violations": watch.violations, "children": children}


if __name__ == "__main__":
    main()
