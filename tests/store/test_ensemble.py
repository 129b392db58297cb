import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.model import resnet
from pipeline.store import ensemble
from pipeline.store.ensemble import Ensemble
from pipeline.store.runs import Run
from tests.bench import export_pretrained
from tests.support import prepare, write_run

COMMIT = "0123456789abcdef"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, which nobody changes."""
    cwd = prepare(tmp_path_factory.mktemp("ensemble"))
    for seed, name in enumerate("ab"):
        write_run(cwd, name, seed)
    return cwd / "data/models"


@pytest.fixture
def run(models: Path) -> Run:
    return Run.open(models, None)


def test_the_order_of_the_names_does_not_matter(models: Path) -> None:
    one, other = (Ensemble.open(models, models / "none", names) for names in (["a", "b"], ["b", "a"]))
    assert one == other
    assert (one.name, one.csv_name) == ("a+b", f"ensemble-{one.weights_sha256[:8]}.csv")
    assert one.weights_sha256 not in {run.weights_sha256 for run in one.runs}


def test_one_run_is_an_ensemble_of_its_own_name_and_weights(models: Path) -> None:
    one = Ensemble.open(models, models / "none", [])
    assert (one.name, one.csv_name, one.weights_sha256) == ("b", "b.csv", one.runs[0].weights_sha256)


# --- networks that come with the project --------------------------------------------------------------------


def export(run: Run, folder: Path, name: str = "tiny") -> Run:
    return export_pretrained.export(
        run, folder, name, trained_on="gradients", command="make it", commit=COMMIT, agreement=lambda path: 99.5
    )


def test_an_exported_run_opens_as_a_run(run: Run, tmp_path: Path) -> None:
    written = export(run, tmp_path)
    for name in ("pretrained", "pretrained-tiny"):
        assert ensemble.open_run(tmp_path / "no-models", tmp_path, name) == written
    assert (written.name, written.card, written.result) == ("pretrained-tiny", run.card, run.result)
    assert written.origin == "gradients, with `make it` at commit 0123456789ab"
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.json", "tiny.safetensors"}
    card = json.loads((tmp_path / "tiny.json").read_text())
    assert card["original"] == {"run": run.name, "weights_sha256": run.weights_sha256}
    assert (card["label_agreement"], card["commit"]) == (99.5, COMMIT)
    written.check_weights()


def test_kernels_are_halved_and_come_back_as_float32(run: Run, tmp_path: Path) -> None:
    written = export(run, tmp_path)
    assert written.weights.stat().st_size < 0.55 * run.weights.stat().st_size
    stored, original = load_file(written.weights), load_file(run.weights)
    assert {v.dtype for v in stored.values() if v.ndim > 1} == {np.dtype(np.float16)}
    assert all(np.array_equal(v, original[k]) for k, v in stored.items() if v.ndim < 2)
    network, full = (resnet.load(r.weights, run.card.config.model) for r in (written, run))
    for found, expected in zip(network.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)  # of the same dtype, too


def test_of_several_one_must_be_named(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path, "a")
    export(run, tmp_path, "b-2")
    with pytest.raises(UsageError, match="choose one of pretrained-a, pretrained-b-2"):
        ensemble.open_run(tmp_path, tmp_path, "pretrained")
    with pytest.raises(MissingInput, match="only pretrained-a, pretrained-b-2"):
        ensemble.open_run(tmp_path, tmp_path, "pretrained-c")
    assert ensemble.open_run(tmp_path, tmp_path, "pretrained-b-2").name == "pretrained-b-2"


def test_damaged_files_are_bad_data(run: Run, tmp_path: Path) -> None:
    written = export(run, tmp_path)
    content = written.weights.read_bytes()
    written.weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadData, match=r"tiny\.safetensors is damaged: restore it with git"):
        ensemble.open_run(tmp_path, tmp_path, "pretrained").check_weights()
    for name, damage in (("tiny.safetensors", content[:-1]), ("tiny.json", b"{}")):
        (tmp_path / name).write_bytes(damage)
        with pytest.raises(BadData, match=f"{name} is .*damaged.*: restore it with git"):
            ensemble.open_run(tmp_path, tmp_path, "pretrained")
