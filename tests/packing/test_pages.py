"""What is written for a package: every recipe, every history, and scripts that a person can read."""

import ast
import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline import cli, train
from pipeline.config import Paths
from pipeline.errors import BadData
from pipeline.packing import lineage, pages
from pipeline.packing.pages import Subject
from pipeline.recipes import PRESETS
from pipeline.store import atomic
from pipeline.store.manifest import FileRecord
from pipeline.store.runs import Run
from pipeline.store.sidecar import Measure, Sidecar
from tests.packing.made import RESULT, identity, write_made

SHA = "5" * 64


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(models=tmp_path / "models", submissions=tmp_path / "submissions")


def rendered(paths: Paths, *runs: Run, csv: str = "sub.csv", **sidecar: Any) -> dict[str, str]:
    """The pages of a package of these runs."""
    versions = {"python": "3.11.7", "torch": "2.9.0+cu130", "numpy": "2.1"}
    card = Sidecar("tiny", "+".join(run.name for run in runs), SHA, 30, "w", "h", 91.0, "split", 90.0, "now", versions)
    subject = Subject(
        "sub", csv, dataclasses.replace(card, **sidecar), lineage.trace(runs, paths.models, paths.submissions),
        {"test.pkl": "6" * 64}, ["torch==2.9.0"], "a machine",
    )  # fmt: skip
    return {name: content.decode() for name, content in pages.render(subject).items()}


def plan(pages_: dict[str, str]) -> dict[str, list[str]]:
    """The runs that train.py trains, in order, with those of their options that are plain texts."""
    for node in ast.parse(pages_["train.py"]).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return {
                ast.literal_eval(key): [item.value for item in options.elts if isinstance(item, ast.Constant)]  # type: ignore[arg-type, attr-defined, misc]
                for key, options in zip(node.value.keys, node.value.values, strict=True)
            }
    raise AssertionError("train.py has no plan")


def test_any_name_of_a_csv_is_the_same_in_the_script_and_in_the_shell(paths: Paths) -> None:
    name = "mein \u00e9 \U0001f600 'sub'.csv"
    found = rendered(paths, write_made(paths.models, "run"), csv=name)
    assigned = next(node for node in ast.parse(found["predict.py"]).body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned.value) == name
    line = next(line for line in found["entry_points.md"].splitlines() if "pipeline.predict" in line)
    words = shlex.split(line)
    assert words[words.index("--out") + 1] == f"SUBMISSION_DIR/{name}"


def test_one_run(paths: Paths) -> None:
    found = rendered(paths, write_made(paths.models, "run"), tta="flip", adapt="auto")
    assert plan(found) == {"run": ["--competition", "tiny", "--preset", "rehearsal"]}
    readme = found["README.md"]
    for said in (
        "torch 2.9.0+cu130",
        "`test.pkl`",
        SHA,
        "90.00 %",
        "a machine",
        "not recorded",
        "test-time augmentation",
    ):
        assert said in readme
    for absent in ("Adaptation", "Distillation", "Pseudo-labels", "Not in here"):
        assert absent not in readme
    assert "--run run --tta flip --adapt auto --out SUBMISSION_DIR/sub.csv" in found["entry_points.md"]
    assert found["requirements.txt"] == "torch==2.9.0\n"


def test_teachers_are_trained_first_and_teach_again(paths: Paths) -> None:
    large = dataclasses.replace(RESULT, trainable_parameters=11_000_000)
    teacher = write_made(paths.models, "teacher", result=large)
    student = write_made(paths.models, "student", identity(teacher), "gone@0123")
    found = rendered(paths, student)
    trained = plan(found)
    assert list(trained) == ["teacher", "student"]
    assert "--baseline" in trained["teacher"] and "--baseline" not in trained["student"]
    assert trained["student"][-3:] == ["--teacher", "teacher-again", "gone"]  # of the lost one the shipped name
    readme = found["README.md"]
    assert "it only teaches" in readme
    assert "`teacher`, a teacher" in readme and "**Distillation.** `student` learned" in readme
    assert "**Not in here:** its teacher gone@0123, of `student`, no longer exists" in readme


def test_pseudo_labels_are_told_and_used(paths: Paths) -> None:
    csv = paths.submissions / 'a "name".csv'
    atomic.write_bytes(csv, b"ID,Labels\n0,1\n")
    sha256 = FileRecord.of(csv).sha256
    Sidecar("tiny", "a+b", sha256, 1, "w", "h", 90.0, "split", 90.0, "now", {}).write(csv)
    found = rendered(paths, write_made(paths.models, "run", labels=f"{csv.name}@{sha256[:12]}"))
    assert plan(found)["run"][-2:] == ["--pseudo-labels", "--rules-allow-pseudo-labels"]
    assert 'paths.models / "run/pseudo_labels/a \\"name\\".csv"' in found["train.py"]
    assert "**Pseudo-labels.** `run` learned from the hidden images" in found["README.md"]
    assert "predicted by `a+b`" in found["README.md"]


@pytest.mark.parametrize("measure", sorted({*get_args(Measure)} - {"none"}))
def test_what_was_done_about_a_shift_is_told(paths: Paths, measure: str) -> None:
    readme = rendered(paths, write_made(paths.models, "run"), adapt="auto", measure=measure)["README.md"]
    assert f"`--adapt auto` applied the measure `{measure}`:\nt" in readme or f"`{measure}`:\na mistake" in readme


def test_a_name_that_is_taken_is_not_trained_over(paths: Paths) -> None:
    found = rendered(paths, write_made(paths.models, "run"), write_made(paths.models, "run-again"))
    assert 'again = f"{name}-again-again"' in found["train.py"]
    assert "run-again-again-again" in found["README.md"]


def test_scripts_are_clean_whatever_the_names(paths: Paths, tmp_path: Path) -> None:
    teacher = write_made(paths.models, "teacher")
    found = rendered(paths, write_made(paths.models, "a.b_c-d", identity(teacher)), teacher, csv='it\'s "1" {x} ü.csv')
    for name in ("prepare_data.py", "train.py", "predict.py"):
        (tmp_path / name).write_text(found[name])
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,W,I,UP,B", "--ignore", "E501", "."]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    assert ast.literal_eval(found["predict.py"].partition("CSV = ")[2].partition("\n")[0]) == 'it\'s "1" {x} ü.csv'


@pytest.mark.parametrize("preset", PRESETS)
def test_the_commands_of_entry_points_are_ones_that_train_takes(paths: Paths, preset: str) -> None:
    run = write_made(paths.models, "run", config=dataclasses.replace(PRESETS[preset], seed=3, epochs=30))
    lines = rendered(paths, run)["entry_points.md"].splitlines()
    (command,) = [line.strip() for line in lines if "pipeline.train" in line]
    assert command.startswith("python -m pipeline.train --run run-again --competition tiny --preset ")
    assert train.main([*cli.spread(shlex.split(command)[3:], "--teacher"), "--dry-run"]) == 0


def test_a_recipe_of_another_version_is_refused(paths: Paths) -> None:
    run = write_made(paths.models, "run", config=dataclasses.replace(PRESETS["rehearsal"], preset="of-old"))
    with pytest.raises(BadData, match=r"the recipe of-old .* another version"):
        rendered(paths, run)
