import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.download import download
from pipeline.kaggle_api.client import Kaggle
from pipeline.model import resnet
from pipeline.model.resnet import build, normalise
from pipeline.predict import predict
from pipeline.preprocess import preprocess
from pipeline.recipes import PRESETS
from pipeline.store import atomic, ledger, runs, submission_format, submissions
from pipeline.store.ledger import Entry
from pipeline.store.manifest import FileRecord, Manifest, records
from pipeline.store.processed import Processed
from pipeline.store.runs import Run
from pipeline.store.submissions import Evidence, Sidecar, local_csv
from tests.bench.export_pretrained import export
from tests.doubles import cpickle
from tests.support import ROOT, SLUG, error_line, here, images, paths_in, prepare, tree, write_download, write_run


def rewrite(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a run, and its manifest with it."""
    values = json.loads((folder / name).read_text())
    change(values)
    atomic.write_json(folder / name, values)
    names = (runs.CONFIG, runs.WEIGHTS, runs.RESULT, runs.METRICS)
    Manifest("train", records(folder, [folder / n for n in names])).write(folder)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with preprocessed data and one finished run."""
    prepare(tmp_path)
    write_run(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_work_as_written(place: Path) -> None:
    result = here("predict", "--out", "submissions/sub.csv", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "run tiny-run (preset rehearsal, competition tiny)" in result.stderr
    assert re.fullmatch(
        r"submissions/sub.csv: 30 rows, in \d+s\nholdout 90\.00%   predicted [\d.]+% \(\d+-\d+, unreliable\)\n"
        "next: python -m pipeline.check --competition tiny --csv submissions/sub.csv\n", result.stdout
    )  # fmt: skip
    csv = place / "submissions/sub.csv"
    lines = csv.read_bytes().split(b"\n")
    assert lines[0] == b"ID,Labels" and lines[-1] == b""
    assert [int(line.split(b",")[0]) for line in lines[1:-1]] == list(range(100, 130))
    sidecar = json.loads(csv.with_suffix(".json").read_text())
    weights = FileRecord.of(place / "data/models/tiny-run" / runs.WEIGHTS).sha256
    assert (sidecar["run"], sidecar["rows"], sidecar["weights_sha256"]) == ("tiny-run", 30, weights)
    assert (sidecar["validation_accuracy"], sidecar["test_accuracy"]) == (91.0, 90.0)
    assert sidecar["csv_sha256"] == FileRecord.of(csv).sha256
    before = tree(place)
    assert "nothing to do" in here("predict", "--out", "submissions/sub.csv", cwd=place).stdout
    assert tree(place) == before


def test_rows_come_in_the_order_of_the_files_ids(tmp_path: Path) -> None:
    source, ids = write_download(tmp_path / "source"), np.arange(129, 99, -1)
    (source / "cifar_test_nolabel.pkl").write_bytes(cpickle.hidden(images(30), ids))
    download(SLUG, paths_in(tmp_path), Kaggle({}), print, source=source)
    preprocess(SLUG, paths_in(tmp_path), print)
    write_run(tmp_path)
    csv = predict(paths_in(tmp_path), print, device="cpu").path
    assert np.loadtxt(csv, dtype=int, delimiter=",", skiprows=1)[:, 0].tolist() == ids.tolist()


def test_a_complete_csv_is_found_without_pytorch(place: Path) -> None:
    predict(paths_in(place), print, device="cpu", tta="flip")
    code = "import sys; sys.modules['torch'] = None; from pipeline.predict import main; "  # it cannot be imported
    command = [sys.executable, "-c", f"{code}main(['--tta', 'flip']); main([])"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
    assert "nothing to do" in done.stdout
    header = "predict: run tiny-run (preset rehearsal, competition tiny)"  # what it does is said before
    assert [line for line in done.stderr.splitlines() if line == header or "torch halted" in line][:2] == [header] * 2
    assert "import of torch halted" in done.stderr


def test_several_runs_are_averaged_and_their_accuracies_measured(place: Path) -> None:
    write_run(place, "b-run", seed=1)
    result = here("predict", "--run", "tiny-run", "b-run", "--tta", "flip", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "averaging 2 runs, " in result.stderr and "do not mention ensembles" not in result.stderr
    assert " alone, without TTA), validation " in result.stderr
    (csv,) = (place / "submissions").glob("ensemble-*.csv")
    sidecar = Sidecar.read(csv)
    assert sidecar is not None
    members = [Run.open(place / "data/models", name) for name in ("b-run", "tiny-run")]
    assert (sidecar.run, sidecar.tta, sidecar.submittable) == ("b-run+tiny-run", "flip", True)
    assert sidecar.runs == {run.name: run.weights_sha256 for run in members}
    assert csv.name == f"ensemble-{sidecar.weights_sha256[:8]}.csv"
    assert f"holdout {sidecar.test_accuracy:.2f}%" in result.stderr
    assert sidecar.validation_accuracy is not None
    assert (sidecar.test_accuracy, sidecar.validation_accuracy) != (90.0, 91.0)
    before = tree(place)
    again = here("predict", "--tta", "flip", "--run", "b-run", "--run", "tiny-run", cwd=place)
    assert "nothing to do" in again.stdout and tree(place) == before


def test_labels_are_the_most_probable_on_average(place: Path) -> None:
    data = Processed.open(place / "data/processed" / SLUG)
    hidden = torch.from_numpy(np.array(data.array("hidden_images")))
    given = []
    for seed, name in enumerate(("tiny-run", "b-run")):
        folder = write_run(place, name, seed)
        network = build(PRESETS["rehearsal"].model, seed).eval()
        with torch.no_grad():  # centred, so that the labels of an untrained network differ at all
            network.fc.bias.sub_(network(normalise(hidden)).mean(0))
            given += [network(normalise(view)).softmax(1) for view in (hidden, hidden.flip(2))]
        resnet.save(folder / runs.WEIGHTS, network.state_dict(), network.config)
        rewrite(folder, runs.CONFIG, lambda card: None)
    csv = predict(paths_in(place), print, names=["tiny-run", "b-run"], tta="flip", device="cpu").path
    found = submission_format.validate(csv, data.array("hidden_ids"))
    assert np.array_equal(found, torch.stack(given).mean(0).argmax(1).numpy())
    assert not any(np.array_equal(found, alone.argmax(1).numpy()) for alone in given)


def test_another_augmentation_is_another_csv_and_force_keeps_a_copy_of_somebody_elses(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    for tta, done in (("none", False), ("flip", False), ("flip", True)):
        result = here("predict", "--tta", tta, cwd=place)
        assert result.returncode == 0 and ("nothing to do" in result.stdout) is done, result.stderr
    for kept in ("tiny-run.csv.bak", "tiny-run.csv.bak2"):
        csv.write_text(f"mine, {kept}\n")
        assert "was not written by predict" in error_line(here("predict", cwd=place), 2)
        result = here("predict", "--force", cwd=place)
        assert f"submissions/tiny-run.csv holds files of yours and is kept as submissions/{kept}\n" in result.stderr
        assert csv.read_text().startswith("ID,Labels\n")
    for name in ("tiny-run.csv.bak", "tiny-run.csv.bak2"):
        assert (place / f"submissions/{name}").read_text() == f"mine, {name}\n"
    assert here("predict", "--force", cwd=place).returncode == 0  # of its own it keeps none
    assert len(list((place / "submissions").glob("*.bak*"))) == 2


@pytest.mark.parametrize("competition", [SLUG, "other"])
def test_a_submitted_csv_is_kept(place: Path, competition: str) -> None:
    csv, copy = place / "submissions/tiny-run.csv", place / "submissions/tiny-run-2.csv"
    assert here("predict", cwd=place).returncode == 0
    first = local_csv(csv).sidecar
    ledger.append(csv.parent / ledger.NAME, [
        dataclasses.replace(Entry.of(first), competition=competition, ref=1, public=20.0)
    ])  # fmt: skip
    assert here("predict", "--force", cwd=place).returncode == 0  # with the same labels
    assert not copy.exists()
    write_run(place, seed=1)
    copy.with_suffix(".json").write_text('{"mine": 1}')
    again, copy = here("predict", cwd=place), copy.with_stem("tiny-run-3")
    assert "submissions/tiny-run.csv was submitted: a copy is kept as submissions/tiny-run-3.csv" in again.stderr
    assert local_csv(copy).sidecar.csv_sha256 == first.csv_sha256 != local_csv(csv).sidecar.csv_sha256
    assert len(Evidence.read(local_csv(copy)).hidden) == 30
    second = Entry.of(local_csv(csv).sidecar)
    ledger.append(csv.parent / ledger.NAME, [dataclasses.replace(second, ref=2, public=21.0)])
    csv.write_text("edited\n")  # so what was submitted is no longer there
    write_run(place, seed=2)
    assert "was submitted" not in here("predict", "--force", cwd=place).stderr
    assert {path.name for path in csv.parent.glob("tiny-run*.json")} == {f"tiny-run{k}.json" for k in ("", "-2", "-3")}


def test_another_adaptation_is_another_csv_and_its_sidecar_says_so(place: Path) -> None:
    sidecars = []
    for adapt in ("none", "bn"):
        result = here("predict", "--adapt", adapt, cwd=place)
        assert result.returncode == 0 and "nothing to do" not in result.stdout, result.stderr
        sidecars.append(Sidecar.read(place / "submissions/tiny-run.csv"))
    assert [sidecar and (sidecar.adapt, sidecar.measure) for sidecar in sidecars] == [("none", "none"), ("bn", "bn")]
    assert "nothing to do" in here("predict", "--adapt", "bn", cwd=place).stdout
    assert "found nothing to revert" in error_line(here("predict", "--adapt", "revert", cwd=place), 2)
    assert Sidecar.read(place / "submissions/tiny-run.csv") == sidecars[1]


def test_runs_without_a_common_validation_set_have_no_validation_accuracy(place: Path) -> None:
    folder = write_run(place, "b-run", seed=1)
    rewrite(folder, runs.CONFIG, lambda card: card["config"].update(validation_fraction=0.2))
    said: list[str] = []
    predicted = predict(paths_in(place), said.append, names=["tiny-run", "b-run"], device="cpu")
    assert predicted.sidecar.validation_accuracy is None
    assert any(line.endswith("validation unknown") for line in said)
    assert submissions.tag("x", "f" * 64, predicted.sidecar.validation_accuracy).endswith("val=unknown")


def test_runs_that_do_not_go_together_are_refused(place: Path) -> None:
    folder = write_run(place, "b-run", seed=1)
    assert "b-run: named twice" in error_line(here("predict", "--run", "b-run", "b-run", cwd=place), 2)
    for key, said in (("data", "trained on different images"), ("competition", "different images, of other and")):
        rewrite(folder, runs.CONFIG, partial(dict.update, **{key: "other"}))
        message = error_line(here("predict", "--run", "tiny-run", "b-run", cwd=place), 2)
        assert "--run b-run tiny-run" in message and said in message
    assert not (place / "submissions").exists()


def test_a_network_over_the_budget_is_labelled_as_not_submittable(place: Path) -> None:
    folder = write_run(place, "large")
    rewrite(folder, runs.RESULT, lambda result: result.update(trainable_parameters=11_173_962))
    result = here("predict", cwd=place)
    assert "NOT SUBMITTABLE: run large has 11,173,962" in result.stderr
    found = Sidecar.read(place / "submissions/large.csv")
    assert found is not None and not found.submittable


def test_a_network_of_the_project_labels_the_users_hidden_images(place: Path) -> None:
    run = Run.open(place / "data/models", None)
    assert "no bundled weights of that name" in error_line(here("predict", "--run", "pretrained", cwd=place), 3)
    export(
        run, place / "data/pretrained", "tiny", trained_on="20 gradients", command="make it", commit="0123456789abcdef",
        agreement=lambda _: 100.0,
    )  # fmt: skip
    processed = place / "data/processed"
    shutil.copytree(processed / SLUG, processed / "other")
    manifest = json.loads((processed / "other/manifest.json").read_text())
    manifest["files"]["train_images.npy"]["sha256"] = "of other training images"
    (processed / "other/manifest.json").write_text(json.dumps(manifest))
    result = here("predict", "--run", "pretrained", "--competition", "other", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "pretrained-tiny: bundled weights, trained on 20 gradients\n" in result.stderr
    found = Sidecar.read(place / "submissions/pretrained-tiny.csv")
    assert found is not None and (found.competition, found.rows, found.validation_accuracy) == ("other", 30, None)
    assert f"holdout {found.test_accuracy:.2f}%" in result.stderr  # measured on the user's images
    refused = here("predict", "--run", "tiny-run", "--competition", "other", cwd=place)
    assert "is not what run tiny-run was trained on" in error_line(refused, 4)
    # By default it is for the competition that the other stages take.
    default = here("predict", "--run", "pretrained-tiny", cwd=place)
    assert "data/processed/deep-learning-spring-2025-project-1" in error_line(default, 3)


@pytest.mark.parametrize("name", ["notes.json", "notes.npz"])
@pytest.mark.parametrize("content", ['{"mine": 1}', "mine"])
def test_a_file_of_somebody_elses_beside_the_csv_is_not_overwritten(place: Path, name: str, content: str) -> None:
    (place / name).write_text(content)
    before = tree(place)
    told = error_line(here("predict", "--out", "notes.csv", cwd=place), 2)
    assert name in told and told.endswith("run predict again with --out notes-2.csv")
    assert tree(place) == before
    assert here("predict", "--out", "notes.csv", "--force", cwd=place).returncode == 0
    assert (place / f"{name}.bak").read_text() == content


def test_two_do_not_write_one_csv_at_once(place: Path) -> None:
    with atomic.lock(place / "sub.csv"):
        assert "another run is at work" in error_line(here("predict", "--out", "sub.csv", cwd=place), 2)
