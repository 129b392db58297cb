"""A trained network on hidden images whose mistake is known: found, tried, and undone."""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from pipeline import train
from pipeline.errors import UsageError
from pipeline.gap import corruption_fit
from pipeline.gap.adapt import Examined, Local, examine, recall
from pipeline.gap.corruption_fit import Found
from pipeline.gap.corruptions import Images, brightened, swapped_channels
from pipeline.store.manifest import Manifest, records
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import Adapt
from pipeline.training import inference
from pipeline.training.device import Device
from pipeline.training.inference import Panel
from tests.training.tiny import SLUG, write_tiny

TINT = np.array([1, 0.7, 0.4], dtype=np.float32)  # or red and blue would be alike, and their exchange no change
NAMES = ("train_images", "test_images", "hidden_images")


def change(folder: Path, **arrays: Images) -> None:
    """Put other arrays into a processed folder."""
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    facts = Processed.open(folder).manifest.facts
    Manifest("preprocess", records(folder, folder.glob("*.npy")), facts=facts).write(folder)


@pytest.fixture(scope="module", autouse=True)
def searched_once() -> Iterator[None]:
    """The search for damages takes seconds, and finds the same in the same images."""
    known: dict[tuple[bytes, bytes], Found] = {}
    search = corruption_fit.find

    def find(labelled: Images, hidden: Images) -> Found:
        key = labelled.tobytes(), hidden.tobytes()
        if key not in known:
            known[key] = search(labelled, hidden)
        return known[key]

    with mock.patch.object(corruption_fit, "find", find):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish images, and a run that has learned them."""
    root = tmp_path_factory.mktemp("examined")
    folder = write_tiny(root / "processed", train=600, test=450)
    change(folder, **{name: (np.load(folder / f"{name}.npy") * TINT).astype(np.uint8) for name in NAMES})
    options = ["--competition", SLUG, "--preset", "rehearsal", "--epochs", "4", "--processed", str(folder.parent)]
    assert train.main([*options, "--models", str(root / "models"), "--run", "r"]) == 0
    return root


@functools.cache
def examined(root: Path, hidden: str, adapt: Adapt) -> tuple[Examined, float]:
    """Examine the hidden images, changed or not; and how many of the labels are right."""
    folder = root / hidden / SLUG
    if not folder.exists():
        shutil.copytree(root / "processed" / SLUG, folder)
        images = np.load(folder / "hidden_images.npy")
        changed = {"same": images, "swapped": swapped_channels(images), "bright": brightened(images, 60)}
        change(folder, hidden_images=np.ascontiguousarray(changed[hidden]))
    data = Processed.open(folder)
    run = Run.open(root / "models", "r")
    panel = Panel(inference.load([run], Device(torch.device("cpu"), "fp32")), "none", 100)
    truth = np.asarray(data.array("test_labels"))
    test = inference.predict(panel, data, "test_images", np.arange(len(truth)), truth)
    found = examine(panel, data, Local(test, None, run.result.test_accuracy / 100), adapt, lambda line: None)
    return found, float((found.evidence.hidden.labels == truth[::3]).mean())


def test_nothing_is_done_where_nothing_is_wrong(root: Path) -> None:
    found, right = examined(root, "same", "auto")
    assert (found.diagnosis.verdict, found.measure, found.trials) == ("none", "none", ())
    assert found.diagnosis.contract == pytest.approx(0, abs=1e-6) and right > 0.9


def test_swapped_channels_are_found_and_turned_back(root: Path) -> None:
    plain, before = examined(root, "swapped", "none")
    found, after = examined(root, "swapped", "auto")
    clean = examined(root, "same", "auto")[1]
    assert plain.diagnosis.verdict == "preprocessing" and "BGR" in plain.diagnosis.reason
    assert found.measure == "revert" and before < clean - 0.2 and after == pytest.approx(clean)
    assert recall(found.evidence) == (found.diagnosis, found.trials, "revert")
    (trial,) = [trial for trial in found.trials if trial.measure == "revert"]
    assert trial.before == pytest.approx(before, abs=0.1) and trial.after == pytest.approx(after, abs=0.1)


def test_norms_help_against_a_corruption(root: Path) -> None:
    plain, before = examined(root, "bright", "none")
    found, after = examined(root, "bright", "bn")
    assert plain.diagnosis.verdict == "corruption" and plain.measure == "none"
    assert found.measure == "bn" and after > before
    assert not np.array_equal(found.evidence.hidden.probabilities, plain.evidence.hidden.probabilities)


def test_what_was_not_found_cannot_be_undone(root: Path) -> None:
    with pytest.raises(UsageError, match=r"--adapt revert: nothing was found .*diagnosis none"):
        examined(root, "same", "revert")
