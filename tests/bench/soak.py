"""The hostile world, at length: crafted files, a misbehaving Kaggle, kills, a long ledger and many clients.

    python tests/bench/soak.py [files kaggle kills ledger clients] [--kills 100] [--seed 1] [--scratch DIR] [--json]

files    every crafted pickle and archive at the real command line, an interpreter each
kaggle   every row of the README's table, through the genuine client
kills    SIGKILL, SIGTERM and SIGINT at random moments over all stages, then the same command again
ledger   seconds of `check` with 10,000 lines in the ledger, all of them on Kaggle's list
clients  clients that ask the stand-in at once

All are the suite's own checks, in full; tests/bench/fuzz.py (coverage-guided) and hidden_size.py (a million images) run
by themselves.  Exit code 1 if anything was wrong; what was is printed with its name.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script: the pipeline is not installed

from pipeline.rehearsal.state import COMPLETE, Outcome, Submission
from pipeline.store import ledger
from tests.bench import side_by_side
from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle
from tests.hostile import checking, kaggle_cases, kaggle_ways, kills
from tests.support import SLUG, stage, write_download

LINES = 10_000  # of the ledger: four a submission
CLIENTS = 50
AGO = 1_700_000_000.0  # seconds since 1970: when the submissions of the ledger were made

Bad = list[str]  # what was wrong, for people
Part = Callable[[argparse.Namespace, Path], tuple[dict[str, Any], Bad]]


def crafted_files(_: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Bad]:
    """Every case with a fresh interpreter."""
    bad, codes = [], Counter[int]()
    seconds, over = [0.0], [0.0]
    with checking.target(folder, fresh=True) as target:
        for case in tqdm(list(checking.every_case()), desc="files", disable=None):
            try:
                outcome = target.check(case)
            except AssertionError as error:
                bad.append(str(error))
                continue
            codes[outcome.code] += 1
            seconds.append(outcome.cpu)
            over.append((outcome.peak - target.usual[case.stage] - 3 * len(case.content())) / 1e6)
    return {
        "cases": codes.total() + len(bad), "codes": dict(sorted(codes.items())),
        "code run": sum("canary" in text for text in bad), "processor seconds at most": round(max(seconds), 2),
        "MB over the usual and three times the file at most": round(max(over)),
    }, bad  # fmt: skip


def kaggle(_: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Bad]:
    """Every row of the table."""
    bad, skipped = [], []
    cases = kaggle_cases.every_case()
    for number, case in enumerate(tqdm(cases, desc="kaggle", disable=None)):
        try:
            kaggle_cases.run_case(case, folder / str(number))
        except AssertionError as error:
            bad.append(str(error))
        except kaggle_ways.CannotProvoke as error:
            skipped.append(f"{case.name}: {error}")
    double = sum("submissions of" in text for text in bad)
    return {"faults": len(cases) - len(skipped), "not provoked": skipped, "double submissions": double}, bad


def killed(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Bad]:
    """Kills at random moments."""
    counts = kills.soak(arguments.kills, arguments.seed, folder)
    by_stage, by_signal = Counter[str](), Counter[str]()
    for (name, number), count in counts.kills.items():
        by_stage[name] += count
        by_signal[number] += count
    return {
        "kills": counts.kills.total(), "by stage": dict(by_stage), "by signal": dict(by_signal),
        "had ended before": counts.too_late, "reruns that finished": counts.reruns_finished,
        "faults": dict(counts.faults),
    }, counts.bad  # fmt: skip


def long_ledger(_: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Bad]:
    """`check` with LINES lines, alone and with Kaggle, whose list has all those submissions."""
    count = LINES // 4
    write_ledger(folder / "submissions/ledger.csv", count)
    alone = _seconds(folder, {})
    with _serving(folder) as served:
        served.state.received.extend(_submission(k) for k in range(count))
        joined = _seconds(folder, served.environment)
    lines = len(ledger.read(folder / "submissions/ledger.csv"))
    bad = [] if lines == LINES else [f"the ledger has {lines} lines after it"]
    return {"lines": LINES, "seconds": round(alone, 2), "seconds with Kaggle": round(joined, 2)}, bad


def write_ledger(path: Path, count: int) -> None:
    """A ledger of `count` submissions, each predicted, sent and scored: four lines."""
    entries = []
    for k in range(count):
        pending = ledger.Entry(
            "2023-11-14T22:13:20+00:00", SLUG, f"run-{k}", f"{k:064x}", k + 1, 91.0, 90.0, None, None, ledger.PENDING
        )
        entries += [
            replace(
                pending, ref=None, status=ledger.PREDICTED, predicted=80.0, predicted_low=75.0, predicted_high=85.0
            ),
            replace(pending, ref=None, status=ledger.SENDING),
            pending,
            replace(pending, public=80.0, private=80.0, status=ledger.COMPLETE),
        ]
    ledger.append(path, entries)


def _submission(k: int) -> Submission:
    return Submission(k + 1, AGO, "a.csv", f"sha={k:064x}"[:16], 100, "", Outcome(COMPLETE, "0.80000", "0.80000"))


def _seconds(folder: Path, environ: dict[str, str]) -> float:
    began = time.perf_counter()
    done = stage("check", "--competition", SLUG, cwd=folder, environ=environ or None)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began


@contextmanager
def _serving(folder: Path) -> Iterator[FaultyKaggle]:
    with faulty_kaggle(write_download(folder / "source"), folder / "state", slug=SLUG) as served:
        yield served


def many_clients(_: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Bad]:
    """CLIENTS genuine clients that list, upload and submit at once."""
    (folder / "sub.csv").write_text("ID,Labels\n" + "".join(f"{i},1\n" for i in range(100, 130)))
    commands = ["files -c tiny", "submissions -c tiny", "submit -c tiny -f sub.csv -m hello"]
    with _serving(folder) as served, ThreadPoolExecutor(CLIENTS) as pool:

        def ask(k: int) -> str:
            words = ["kaggle", "competitions", *commands[k % len(commands)].split()]
            done = subprocess.run(
                words, cwd=folder, env=served.environment, capture_output=True, text=True, check=False
            )
            return "" if done.returncode == 0 else f"{' '.join(words)}: {done.stdout[-200:]} {done.stderr[-200:]}"

        bad = [text for text in pool.map(ask, range(CLIENTS)) if text]
        sent = sum(k % len(commands) == 2 for k in range(CLIENTS))
        if len(served.state.submissions()) != min(sent, 20):
            bad.append(f"{len(served.state.submissions())} submissions came of {sent}")
    return {"clients at once": CLIENTS, "requests": len(served.calls)}, bad


PARTS: dict[str, Part] = {
    "files": crafted_files, "kaggle": kaggle, "kills": killed, "ledger": long_ledger, "clients": many_clients,
}  # fmt: skip


def main() -> int:
    """Run the parts that were asked for."""
    parser = side_by_side.parser(__doc__, rounds=1)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--kills", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills' moments (default: 1)")
    parser.add_argument("--scratch", type=Path, help="where it all happens (default: the system's)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, dict[str, Any]] = {}
    bad: Bad = []
    for name in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            began = time.perf_counter()
            with redirect_stdout(sys.stderr):  # what the stages say meanwhile
                found[name], wrong = PARTS[name](arguments, Path(scratch))
            found[name] |= {"wrong": len(wrong), "minutes": round((time.perf_counter() - began) / 60, 1)}
            bad += wrong
    lines = [f"{name:8} {json.dumps(counts)}" for name, counts in found.items()]
    side_by_side.report(arguments.json, {"parts": found, "bad": bad}, [*lines, *bad])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
