"""The hostile world at length: crafted files, a misbehaving Kaggle, kills and a long ledger.

    python tests/bench/soak.py [files kaggle kills ledger] [--share 10] [--kills 8] [--seed 1]

files    crafted pickles and archives at the real command line, an interpreter each
kaggle   rows of tests/hostile/test_kaggle_misbehaves.py, through the official client
kills    SIGKILL, SIGTERM and SIGINT at random moments over all stages, then the same command again
ledger   seconds of `check` with 10,000 lines in the ledger, all of them on Kaggle's list

All are the suite's own checks; --share 1 tries every file and row.  tests/bench/fuzz.py (coverage-guided) and
hidden_size.py (a million images) run by themselves.  Exit code 1 if anything was wrong, which is printed.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import pytest
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.rehearsal.mock import mock_kaggle
from pipeline.rehearsal.state import COMPLETE, Outcome, Submission
from pipeline.store import ledger
from tests.bench import side_by_side
from tests.hostile import kaggle_place, kills, test_crafted_files
from tests.hostile.surroundings import shell
from tests.hostile.test_kaggle_misbehaves import CASES
from tests.support import SLUG, write_download

SUBMISSIONS = 2_500  # four lines of the ledger each

Found = tuple[dict[str, object], list[str]]  # figures to be shown, and what was wrong


def tried(what: str, checks: Mapping[str, Callable[[], object]], share: int) -> Found:
    """Carry one in `share` of the checks out, one by one."""
    bad, skipped, chosen = [], [], list(checks)[::share]
    for name in tqdm(chosen, desc=what, disable=None):
        try:
            checks[name]()
        except AssertionError as error:
            bad.append(f"{name}: {error}")
        except pytest.skip.Exception as error:
            skipped.append(f"{name}: {error}")
    return {"cases": len(chosen), "not provoked": skipped}, bad


def crafted_files(arguments: argparse.Namespace, folder: Path) -> Found:
    """Every case with a fresh interpreter."""
    target = test_crafted_files.Target(folder, fresh=True)
    checks = {f"{case.file}, {case.name}": partial(target.check, case) for case in test_crafted_files.every_case()}
    return tried("files", checks, arguments.share)


def kaggle(arguments: argparse.Namespace, folder: Path) -> Found:
    """Rows of the table, with a fresh interpreter for each call of the client."""
    checks = {}
    for stage_, cases in CASES.items():
        template = kaggle_place.make_template(folder / stage_, stage_)
        for k, case in enumerate(cases):
            run = partial(kaggle_place.run_case, case, stage_, template, folder / f"{stage_}-{k}")
            checks[f"{stage_}, {case.name}"] = run
    return tried("kaggle", checks, arguments.share)


def killed(arguments: argparse.Namespace, folder: Path) -> Found:
    """Kills of all stages in turn, at random moments."""
    rng, template = random.Random(arguments.seed), kills.Template(folder / "template")
    outcomes = [
        kills.kill_once(rng, name, template, folder / f"kill-{k}")
        for k, name in tqdm(list(enumerate(islice(cycle(kills.CASES), arguments.kills))), desc="kills", disable=None)
    ]
    early = sum(code == 0 for code, _ in outcomes)
    return {"kills": len(outcomes), "ended before": early}, [text for _, problems in outcomes for text in problems]


def long_ledger(arguments: argparse.Namespace, folder: Path) -> Found:
    """`check` with a long ledger, alone and with Kaggle, whose list has all those submissions."""
    path = folder / "submissions/ledger.csv"
    write_ledger(path, SUBMISSIONS)
    alone = _seconds(folder, {})
    with mock_kaggle(write_download(folder / "source"), folder / "state", slug=SLUG) as served:
        outcome, when = Outcome(COMPLETE, "0.80000", "0.80000"), 1_700_000_000.0  # seconds since 1970
        served.state.received += [
            Submission(k + 1, when, "a.csv", f"sha={k:064x}"[:16], 100, "", outcome) for k in range(SUBMISSIONS)
        ]
        joined = _seconds(folder, served.environment)
    lines = len(ledger.read(path))
    bad = [] if lines == 4 * SUBMISSIONS else [f"the ledger has {lines} lines after it"]
    return {"lines": lines, "seconds": round(alone, 2), "seconds with Kaggle": round(joined, 2)}, bad


def write_ledger(path: Path, count: int) -> None:
    """A ledger of `count` submissions, each predicted, sent and scored: four lines."""
    entries = []
    for k in range(count):
        pending = ledger.Entry(
            time="2023-11-14T22:13:20+00:00", competition=SLUG, run=f"run-{k}", csv_sha256=f"{k:064x}", ref=k + 1,
            local_validation=91.0, local_test=90.0, status=ledger.PENDING,
        )  # fmt: skip
        sending = replace(pending, ref=None, status=ledger.SENDING)
        predicted = replace(sending, status=ledger.PREDICTED, predicted=80.0, predicted_low=75.0, predicted_high=85.0)
        scored = replace(pending, public=80.0, private=80.0, status=ledger.COMPLETE)
        entries += [predicted, sending, pending, scored]
    ledger.append(path, entries)


def _seconds(folder: Path, environ: dict[str, str]) -> float:
    began = time.perf_counter()
    done = shell(f"$P.check --competition {SLUG}", folder, **environ)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began


PARTS: dict[str, Callable[[argparse.Namespace, Path], Found]] = {
    "files": crafted_files, "kaggle": kaggle, "kills": killed, "ledger": long_ledger,
}  # fmt: skip


def main() -> int:
    """Run the parts that were asked for."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--share", type=int, default=10, help="one in so many files and rows (default: 10)")
    parser.add_argument("--kills", type=int, default=8, help="how many (default: 8, one for each stage)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills' moments (default: 1)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, dict[str, object]] = {}
    bad: list[str] = []
    for name in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):  # what the stages say meanwhile
            began = time.perf_counter()
            found[name], wrong = PARTS[name](arguments, Path(scratch))
            found[name] |= {"wrong": len(wrong), "minutes": round((time.perf_counter() - began) / 60, 1)}
            bad += wrong
    lines = [f"{name:8} {json.dumps(figures)}" for name, figures in found.items()]
    side_by_side.report(arguments.json, {"parts": found, "bad": bad}, [*lines, *bad])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
