"""The stage through its real command line, on a few hundred images."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]

from pipeline import predict, train
from pipeline.config import Paths
from pipeline.console import duration
from pipeline.model.summary import summarise
from pipeline.recipes import MODELS, ModelConfig
from pipeline.store import atomic
from pipeline.store.ensemble import Ensemble
from pipeline.store.manifest import FileRecord, Manifest
from pipeline.store.processed import Processed
from pipeline.store.runs import CHECKPOINT, WEIGHTS, Run, all_latest, default_name
from pipeline.store.submissions import Sidecar
from pipeline.training.device import machine
from tests.support import Killed, tree
from tests.training.tiny import SLUG, before_step, write_tiny

EPOCHS = 3


class Place:
    """A folder of processed images, and a folder for runs."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(processed=root / "processed", models=root / "models", submissions=root / "submissions")
        write_tiny(self.paths.processed)

    def arguments(self, *more: str) -> list[str]:
        folders = ["--processed", str(self.paths.processed), "--models", str(self.paths.models)]
        return ["--competition", SLUG, "--preset", "rehearsal", "--epochs", str(EPOCHS), *folders, *more]

    def train(self, *more: str) -> int:
        return train.main(self.arguments(*more))

    def run(self) -> Run:
        return Run.open(self.paths.models, None)

    def checkpoint(self, name: str) -> dict[str, object]:
        content: dict[str, object] = torch.load(self.paths.models / name / CHECKPOINT, weights_only=True)
        return content


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("uninterrupted"))
    assert place.train() == 0
    return place


def test_a_run_learns_and_is_complete(uninterrupted: Place) -> None:
    run = uninterrupted.run()
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["train_accuracy"] > 60
    assert run.result.validation_rows == 30
    assert run.result.test_rows == 100
    assert run.result.validation_accuracy == max(row["validation_accuracy"] for row in rows)
    accuracies = [row["validation_accuracy"] for row in rows]
    assert run.result.last_validation_accuracy == accuracies[-1]
    assert run.result.best_epoch == accuracies.index(max(accuracies)) + 1
    assert not run.result.optimistic
    assert run.manifest.inputs == {"data": run.card.data}
    assert set(run.manifest.files) == {"config.json", "weights.safetensors", "metrics.jsonl", "result.json"}
    assert run.result.system == machine()
    board = events(run.folder / "tensorboard")
    assert [step for step, _ in board["validation/accuracy"]] == [1, 2, 3]


def test_a_complete_run_is_left_alone_without_pytorch(uninterrupted: Place) -> None:
    models = uninterrupted.paths.models
    (models / "LATEST").unlink()
    before = tree(models)
    script = "import sys; from pipeline import train; code = train.main(sys.argv[1:]); "
    script += "sys.exit(code if 'torch' not in sys.modules else 99)"
    command = [sys.executable, "-c", script, *uninterrupted.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "is complete, nothing to do" in done.stderr
    following = f"next: python -m pipeline.predict --processed {uninterrupted.paths.processed} --models {models}"
    assert done.stdout.splitlines()[-1] == following
    assert tree(models) == {**before, "LATEST": f"{default_name(uninterrupted.run().card)}\n".encode()}


def test_a_killed_run_goes_on_to_bit_identical_weights(
    place: Place, uninterrupted: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        before_step(patch, 1, 3, mock.Mock(side_effect=Killed))
        place.train()
    name = uninterrupted.run().name
    assert (place.checkpoint(name)["epoch"], place.checkpoint(name)["step"]) == (1, 0)
    assert Manifest.read(place.paths.models / name) is None
    assert place.train() == 0
    assert place.run().weights_sha256 == uninterrupted.run().weights_sha256
    assert losses(place) == losses(uninterrupted)


def test_a_stopped_run_saves_mid_epoch_and_goes_on_to_bit_identical_weights(
    place: Place, uninterrupted: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restart_file_count(monkeypatch)
    with monkeypatch.context() as patch:
        before_step(patch, 1, 3, lambda: signal.raise_signal(signal.SIGINT))
        assert place.train("--force") == 130
    name = uninterrupted.run().name
    said = capsys.readouterr().err
    assert "stopped in epoch 2 after step 4 of 5: the checkpoint is saved" in said
    assert said.endswith("error: interrupted; run the same command again without --force to resume\n")
    assert (place.checkpoint(name)["epoch"], place.checkpoint(name)["step"]) == (1, 4)
    assert place.train() == 0
    assert "resuming after 1 epochs and 4 steps" in capsys.readouterr().err
    assert place.run().weights_sha256 == uninterrupted.run().weights_sha256
    assert losses(place) == losses(uninterrupted)
    board, whole = (events(where.run().folder / "tensorboard") for where in (place, uninterrupted))
    assert {tag: len(shown) for tag, shown in board.items()} == {tag: len(shown) for tag, shown in whole.items()}


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: of each tag the steps and the numbers."""
    found = EventAccumulator(str(folder), tensor_size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, _number(e.tensor_proto)) for e in found.Tensors(tag)] for tag in found.Tags()["tensors"]}


def _number(tensor: Any) -> float:
    return float([*tensor.float_val, *np.frombuffer(tensor.tensor_content, np.float32)][0])


def restart_file_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read in the order of their names, which end with a count: the tenth comes before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def losses(place: Place) -> list[tuple[float, float]]:
    rows = map(json.loads, (place.run().folder / "metrics.jsonl").read_text().splitlines())
    return [(row["train_loss"], row["validation_loss"]) for row in rows]


def test_the_papers_protocol_says_that_it_is_optimistic(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.train("--epochs", "1", "--validation", "test_batch") == 0
    result = place.run().result
    assert result.optimistic and result.validation_rows == 100
    assert result.validation_accuracy == result.test_accuracy
    assert "optimistic: the best epoch was selected on it" in capsys.readouterr().out


def test_another_run_of_the_same_name_is_refused(uninterrupted: Place, capsys: pytest.CaptureFixture[str]) -> None:
    name = uninterrupted.run().name
    assert uninterrupted.train("--run", name, "--batch-size", "32") == 2
    assert re.search(r"\(config.batch_size: 64 -> 32\): .*--run.*--force", capsys.readouterr().err)


def test_force_trains_anew(place: Place) -> None:
    assert place.train("--run", "mine", "--epochs", "1") == 0
    first = place.run().manifest
    assert place.train("--run", "mine", "--epochs", "1", "--seed", "1", "--force") == 0
    assert place.run().card.config.seed == 1
    assert place.run().manifest.fingerprint("") != first.fingerprint("")


def test_the_run_under_way_is_locked(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with atomic.lock(place.paths.models / "mine"):
        assert place.train("--run", "mine") == 2
    assert "another run is at work" in capsys.readouterr().err


def test_seeds_are_one_command_that_goes_on_and_trains_none_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.train("--epochs", "1", "--seed", "1") == 0
    alone, command = place.run().name, ("--epochs", "1", "--seeds", "1", "0", "1")
    with monkeypatch.context() as patch:
        before_step(patch, 0, 3, lambda: signal.raise_signal(signal.SIGTERM))
        assert place.train(*command) == 130
    assert place.train(*command) == 0
    said, progress = capsys.readouterr()
    assert progress.count("is complete, nothing to do") == 2 and progress.count("resuming after") == 1
    names = all_latest(place.paths.models)
    assert names[0] == alone and names[1].endswith("-s0")
    finished = [Run.open(place.paths.models, name) for name in names]
    assert [run.card.config.seed for run in finished] == [1, 0]
    assert len({run.weights_sha256 for run in finished}) == 2
    tests = [run.result.test_accuracy for run in finished]
    assert f"   holdout {mean(tests):.2f}% ± {stdev(tests):.2f}\n" in said
    words = shlex.split(said.splitlines()[-1])
    assert words[:4] == ["next:", "python", "-m", "pipeline.predict"]
    averaged = predict.command.make_context("predict", words[4:]).params["names"]
    opened = [Ensemble.open(place.paths.models, place.paths.pretrained, given) for given in (averaged, ())]
    assert [ensemble.name for ensemble in opened] == ["+".join(sorted(names))] * 2  # by default, too
    assert place.train(*command, "--run", "other") == 0  # whatever their names
    assert all_latest(place.paths.models) == names
    assert place.train("--seeds", "0", "--seed", "1") == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert place.train("--seeds", "0", "1") == 2
    assert capsys.readouterr().err.count("--seeds goes neither with --seed nor with torchrun") == 2
    assert place.train("--compile", "yes", "--run", "new") == 2
    assert "--compile yes: only a single process compiles; leave --compile out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet18"], "11,173,962 trainable parameters"),
        (["--batch-size", "271"], "--batch-size 271 is larger than the training set (270 images)"),
        (["--device", "mps"], "--device mps: PyTorch finds none here"),
        (["--run", "../mine"], "not a path"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    for dry in ([], ["--dry-run"]):
        assert place.train(*arguments, *dry) == 2
        assert message in capsys.readouterr().err
    assert not place.paths.models.exists()


# --- a dry run ------------------------------------------------------------------------------------------------


def preview(place: Place, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What a dry run shows, after checking that it writes nothing."""
    before = tree(place.paths.models.parent)
    assert place.train(*more, "--dry-run") == 0
    assert tree(place.paths.models.parent) == before
    return capsys.readouterr().out


def test_a_dry_run_shows_what_would_be_trained(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    text = preview(place, capsys, "--learning-rate", "0.01", "--run", "mine")
    assert f"run         {place.paths.models / 'mine'}: new\n" in text
    assert "recipe      --preset rehearsal --epochs 3 --learning-rate 0.01\n" in text
    assert "model       rehearsal: 78,330 trainable parameters, 3,523,200 MACs per image\nimages      270 in" in text
    assert "time        unknown: no run has finished on this device yet\n" in text


def test_a_dry_run_estimates_the_time_by_macs_and_the_latest_runs_speed(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.train("--run", "mine") == 0
    capsys.readouterr()
    assert preview(place, capsys, "--run", "mine") == ""
    (place.paths.models / "mine/execution.json").write_text("damaged, and not to be read")
    assert "mine: replaces what is there\n" in preview(place, capsys, "--run", "mine", "--force")
    result = place.paths.models / "mine/result.json"
    values = json.loads(result.read_text())
    result.write_text(json.dumps({**values, "images_per_second": 50.0}).ljust(result.stat().st_size))
    again = preview(place, capsys, "--run", "other", "--seed", "1", "--epochs", "100")
    assert "time        about 9m 0s, by the speed of run mine\n" in again  # 100 * 270 / 50
    wide = preview(place, capsys, "--run", "other", "--model", "fast", "--epochs", "100")
    factor = summarise(MODELS["fast"]).macs / summarise(MODELS["rehearsal"]).macs
    assert f"about {duration(100 * 270 / 50 * factor)}, by" in wide
    result.write_text(json.dumps({**values, "device": "another"}).ljust(result.stat().st_size))
    assert "time        unknown: no run has finished on this device yet\n" in preview(place, capsys, "--seed", "1")


def test_a_dry_run_tells_how_an_interrupted_run_goes_on_and_refuses_other_options(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        before_step(patch, 2, 3, mock.Mock(side_effect=Killed))
        place.train("--run", "mine")
    capsys.readouterr()
    text = preview(place, capsys, "--run", "mine")
    assert "mine: goes on, 2 epochs are done\n" in text and "to go, as its last epochs took\n" in text
    assert place.train("--run", "mine", "--batch-size", "32", "--dry-run") == 2
    assert "exists with other options" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "code"), [("", 0), ("--model resnet18", 2)])
def test_a_scripts_dry_run_needs_no_data_and_is_silent(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: str, code: int
) -> None:
    monkeypatch.setenv("PIPELINE_SCRIPT", "run_all.sh")
    assert place.train("--competition", "not-downloaded", *options.split(), "--dry-run") == code
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == bool(code)


def test_a_model_over_the_limit_is_trained_only_if_asked_and_marked(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nearly all of it at two by two pixels, so quick.
    monkeypatch.setitem(MODELS, "resnet18", ModelConfig("resnet18", 8, (8, 770), (1, 1), (4, 4)))
    assert place.train("--epochs", "1", "--model", "resnet18") == 2
    assert re.search("allows 5,000,000.*--allow-over-limit", capsys.readouterr().err)
    assert place.train("--epochs", "1", "--model", "resnet18", "--allow-over-limit") == 0
    assert not place.run().result.submittable
    output = capsys.readouterr().out
    assert "over the parameter limit: its predictions cannot be submitted" in output and "next: " not in output


# --- what a run learns from beside its own images -------------------------------------------------------------


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with two finished runs, teacher1 and teacher2."""
    place = Place(tmp_path_factory.mktemp("teachers"))
    for seed in ("1", "2"):
        assert place.train("--epochs", "1", "--run", f"teacher{seed}", "--seed", seed) == 0
    return place


def test_finished_runs_teach(teachers: Place) -> None:
    shas = set()
    for options in (["--distillation-weight", "0.9"], ["--distillation-temperature", "8"]):
        assert teachers.train("--epochs", "1", "--teacher", "teacher2", "teacher1", *options) == 0
        shas.add(teachers.run().weights_sha256)
    known = teachers.run().card.config.teachers
    assert [entry.partition("@")[0] for entry in known] == ["teacher1", "teacher2"]
    first = Run.open(teachers.paths.models, "teacher1").weights_sha256
    assert known[0].endswith(first[:12])
    assert len(shas | {first}) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--teacher", "nobody"], 3, "no run nobody"),
        (["--teacher", "teacher1", "teacher1"], 2, "named twice"),
        (["--teacher", "teacher1", "--validation-fraction", "0.2"], 2, "was trained on this run's validation images"),
    ],
)
def test_teachers_that_will_not_do_are_refused(
    teachers: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert teachers.train("--run", "student", *arguments) == code
    assert message in capsys.readouterr().err
    assert not (teachers.paths.models / "student").exists()


def test_a_teacher_of_other_data_or_with_damaged_weights_is_refused(
    teachers: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = teachers.paths.models / "teacher1" / WEIGHTS
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert teachers.train("--run", "student", "--teacher", "teacher1") == 4
    assert "damaged" in capsys.readouterr().err
    weights.write_bytes(original)
    write_tiny(tmp_path / "others", seed=1)
    assert teachers.train("--run", "student", "--teacher", "teacher1", "--processed", str(tmp_path / "others")) == 4
    assert "was trained on other data" in capsys.readouterr().err


def test_labels_of_the_hidden_images_are_learned_only_if_the_rules_allow_it(
    teachers: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--processed", str(teachers.paths.processed), "--models", str(teachers.paths.models)]
    csv = teachers.paths.submissions / "plain.csv"
    options = [*folders, "--submissions", str(csv.parent)]
    assert predict.main([*options, "--run", "teacher1", "--out", str(csv)]) == 0
    assert teachers.train("--run", "taught", "--pseudo-labels", str(csv)) == 2
    assert teachers.train("--run", "taught", "--rules-allow-pseudo-labels") == 2
    assert "--rules-allow-pseudo-labels go together" in capsys.readouterr().err
    assert not (teachers.paths.models / "taught").exists()
    both = ["--pseudo-labels", str(csv), "--rules-allow-pseudo-labels"]
    assert teachers.train("--epochs", "1", "--run", "taught", "--seed", "1", *both) == 0
    run, images = teachers.run(), Processed.open(teachers.paths.processed / SLUG)
    assert run.card.config.pseudo_labels == f"{csv}@{FileRecord.of(csv).sha256[:12]}"
    assert run.weights_sha256 != Run.open(teachers.paths.models, "teacher1").weights_sha256
    rows = len(images.array("train_labels")) - run.result.validation_rows + len(images.array("hidden_ids"))
    said = capsys.readouterr().err
    assert f"{rows:,} training and" in said and "the rules must allow that" in said

    out = csv.with_name("taught.csv")
    assert predict.main([*options, "--out", str(out), "--verbose"]) == 0
    card = Sidecar.read(out)
    assert card is not None and list(card.pseudo_labels) == [run.card.config.pseudo_labels]
    assert "its confidence says nothing" in capsys.readouterr().out
    csv.write_text("ID,Labels\n")
    assert teachers.train("--run", "again", *both) == 4
    assert "edited after" in capsys.readouterr().err
