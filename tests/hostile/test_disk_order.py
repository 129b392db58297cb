"""What a power cut can spoil: nothing is renamed before it is synced, nobody is told before the ledger knows."""

import json
import os
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from pipeline import check, download, predict, preprocess, submit, train
from pipeline.rehearsal.mock import MockKaggle
from pipeline.store import atomic, ledger
from pipeline.store.runs import METRICS, TENSORBOARD
from tests.hostile.disk_order import Watch, watching
from tests.support import serve, write_download
from tests.training.tiny import SLUG, before_step, write_tiny

RUN = "tiny-run"
RAW, PROCESSED, MODEL, CSV = "data/raw/tiny", "data/processed/tiny", f"data/models/{RUN}", f"submissions/{RUN}"
COMPETITION = ("--competition", SLUG)
TRAINING = (*COMPETITION, "--preset", "rehearsal", "--epochs", "2", "--device", "cpu")
# In their order: the options of each stage, and the final names in the order in which they come.
STAGES: dict[str, tuple[ModuleType, tuple[str, ...], list[str]]] = {
    "download": (download, COMPETITION, [RAW]),
    "preprocess": (preprocess, COMPETITION, [PROCESSED]),
    "preprocess again": (preprocess, (*COMPETITION, "--force"), [PROCESSED]),
    "train": (train, (*TRAINING, "--batch-size", "20", "--run", RUN), [
        *(f"{MODEL}/{name}.json" for name in ("config", "execution")),
        *(2 * [f"{MODEL}/metrics.jsonl", f"{MODEL}/checkpoint.pt"]),
        *(f"{MODEL}/{name}" for name in ("metrics.jsonl", "weights.safetensors", "result.json", "manifest.json")),
        "data/models/LATEST",
    ]),
    "predict": (predict, ("--device", "cpu"), [f"{CSV}.npz", f"{CSV}.json", f"{CSV}.csv", "submissions/ledger.csv"]),
    "submit": (submit, ("--poll", "0.1"), []),
    "check": (check, COMPETITION, []),
}  # fmt: skip


@dataclass(frozen=True)
class Observed:
    """What a stage did: for each start of a child process, the ledger's last status and how much Kaggle had got."""

    code: int
    renamed: list[str]
    violations: list[str]
    children: list[tuple[str, int]]


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Observed]:
    """All stages one after the other under the eye of a Watch."""
    place = tmp_path_factory.mktemp("order")
    write_download(place / "source")
    (place / "labels.csv").write_text("ID,Labels\n" + "".join(f"{100 + k},{k % 10}\n" for k in range(30)))
    watch = Watch(place)
    with serve(place) as kaggle, mock.patch.dict(os.environ, kaggle.environment, clear=True), chdir(place):
        return {name: observe(watch, stage, options, kaggle) for name, (stage, options, _) in STAGES.items()}


def observe(watch: Watch, stage: ModuleType, options: tuple[str, ...], kaggle: MockKaggle) -> Observed:
    children: list[tuple[str, int]] = []

    def at_child() -> None:
        watch.everything_is_on_disk("when a child process starts")
        entries = ledger.read(watch.root / "submissions" / ledger.NAME)
        children.append((entries[-1].status if entries else "", kaggle.count("CreateSubmission")))

    watch.at_child, watch.renamed, watch.violations = at_child, [], []
    with watching(watch):
        code = stage.main(options)
    watch.everything_is_on_disk("at the end")
    return Observed(code, watch.renamed, watch.violations, children)


@pytest.mark.parametrize("stage", STAGES)
def test_each_final_name_comes_in_its_turn_and_a_power_cut_spoils_none(order: dict[str, Observed], stage: str) -> None:
    assert order[stage].code == 0
    assert order[stage].renamed == STAGES[stage][2]
    assert order[stage].violations == []


def test_the_ledger_is_on_disk_before_kaggle_is_told(order: dict[str, Observed]) -> None:
    """That each child process finds it synced is among the violations; here: which lines it finds."""
    seen = order["submit"].children
    assert ("sending", 0) in seen and set(seen) <= {("predicted", 0), ("sending", 0), ("sending", 1), ("pending", 1)}
    assert order["check"].children[0] == ("complete", 1)


# --- the watch itself -----------------------------------------------------------------------------------------


def in_place(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/file").write_text("new")


def renamed(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/.part").write_text("new")
    (folder / "data/.part").rename(folder / "data/file")


def changed_after_its_sync(folder: Path) -> None:
    with atomic.replacing(folder / "data/file") as path, path.open("w") as stream:
        os.fsync(stream)
        stream.write("new")


def whole_folder(folder: Path) -> None:
    with atomic.replacing_folder(folder / "data/folder") as path:
        (path / "file").write_text("new")


@pytest.mark.parametrize("write", [in_place, renamed, changed_after_its_sync, whole_folder])
def test_the_watch_sees_what_is_not_synced(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_sync", lambda _path: None)
    watch = Watch(tmp_path)
    with watching(watch):
        write(tmp_path)
    assert write is in_place or any("was not synced before it became" in line for line in watch.violations)
    watch.everything_is_on_disk("at the end")
    assert "at the end: the folder of data is not synced" in watch.violations


# --- what is not synced: TensorBoard's events; and a torn file of metrics, which no checkpoint knows of -----------


def test_torn_metrics_and_events_do_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path / "data/processed")
    monkeypatch.chdir(tmp_path)
    arguments = [*TRAINING, "--run", RUN]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        before_step(patched, 1, 2, interrupt)
        assert train.main(arguments) == 130
    folder = tmp_path / MODEL
    first = (folder / METRICS).read_text()
    for path in (folder / METRICS, *(folder / TENSORBOARD).iterdir()):
        path.write_bytes(path.read_bytes()[:-9])
    assert train.main(arguments) == 0
    rows = (folder / METRICS).read_text().splitlines(keepends=True)
    assert rows[0] == first
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]
    assert len(list((folder / TENSORBOARD).iterdir())) == 2
