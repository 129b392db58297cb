"""The winner's package: what is in it, and that a stranger makes the very same CSV from it."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch

from pipeline.predict import predict
from pipeline.store import atomic
from pipeline.store.manifest import FileRecord
from pipeline.store.sidecar import Sidecar
from tests.hostile.known_secrets import SECRETS, leaks, way
from tests.support import (
    ROOT,
    SLUG,
    clean_environment,
    error_line,
    here,
    paths_in,
    predicted_place,
    prepare,
    stage,
    write_run,
)
from tests.training.tiny import take_float32

ZIP = "data/packages/tiny-run.zip"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, one untrained run and its CSV."""
    return predicted_place(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def place(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "place"))


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as source:
        return {name: source.read(name) for name in source.namelist()}


# --- a stranger -------------------------------------------------------------------------------------------


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a trained teacher, a trained student, and the student's CSV."""
    take_float32(monkeypatch)
    place = prepare(tmp_path / "place")
    short = (
        "--competition",
        SLUG,
        "--preset",
        "rehearsal",
        "--epochs",
        "5",
        "--learning-rate",
        "0.01",
        "--device",
        "cpu",
    )
    assert here("train", *short, "--run", "teacher", "--seed", "1", cwd=place).returncode == 0
    assert here("train", *short, "--run", "student", "--teacher", "teacher", cwd=place).returncode == 0
    assert (
        here("predict", "--device", "cpu", "--tta", "flip", "--out", "submissions/sub.csv", cwd=place).returncode == 0
    )
    return place


def test_a_stranger_makes_the_very_same_csv_and_weights(taught: Path, tmp_path: Path) -> None:
    submitted = (taught / "submissions/sub.csv").read_bytes()
    assert len({line.partition(b",")[2] for line in submitted.splitlines()[1:]}) > 3  # else it would prove little
    result = here("package", "--csv", "submissions/sub.csv", "--out", tmp_path / "handed-in.zip", cwd=taught)
    assert result.returncode == 0, result.stderr
    assert "student learned from teacher" in result.stdout
    shutil.unpack_archive(tmp_path / "handed-in.zip", tmp_path / "stranger")
    taught.rename(tmp_path / "out-of-reach")
    package, raw = tmp_path / "stranger/student", tmp_path / "elsewhere/raw"
    raw.parent.mkdir()
    (tmp_path / "out-of-reach/source").rename(raw)
    settings = json.loads((package / "SETTINGS.json").read_text())
    settings |= {"RAW_DATA_DIR": str(raw), "SUBMISSION_DIR": "results"}
    (package / "SETTINGS.json").write_text(json.dumps(settings))

    def run(*command: str) -> str:
        environ = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        found = subprocess.run(
            [sys.executable, str(package / command[0]), *command[1:]], cwd=tmp_path / "elsewhere",
            env={**environ, **threads}, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert (found.returncode, found.stderr) == (0, ""), found.stdout + found.stderr
        return found.stdout

    in_process(package / "train.py", "--help")
    assert not (package / "models/student-again/manifest.json").exists()
    in_process(package / "prepare_data.py")
    assert "30 hidden images" in run("prepare_data.py")  # whatever an earlier call made
    assert "predict.py: sub.csv is IDENTICAL to the submitted CSV" in run("predict.py", "--device", "cpu")
    assert (package / "results/sub.csv").read_bytes() == submitted
    trained = run("train.py", "--device", "cpu")
    for name in ("teacher", "student"):
        assert f"train.py: the weights of {name}-again are IDENTICAL to those of {name}" in trained
    assert "next: python -m" not in trained  # entry_points.md says what comes next
    in_process(package / "predict.py", "--again", "--device", "cpu")
    assert (package / "results/sub-again.csv").read_bytes() == submitted
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["raw"]


def in_process(script: Path, *arguments: str) -> None:
    """A script of the package in this process: PyTorch is imported already."""
    with (
        mock.patch.dict(os.environ, clean_environment(), clear=True),
        mock.patch.object(sys, "argv", [str(script), *arguments]),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            assert ended.code == 0


# --- what is in it ----------------------------------------------------------------------------------------


def test_it_holds_what_kaggle_asks_for_and_nothing_else(place: Path) -> None:
    home = place / "home"
    (place / "pipeline.log").write_text("a stray file")
    result = here("package", cwd=place, environ=way(home, 9, *SECRETS))
    assert result.returncode == 0, result.stderr
    found = contents(place / ZIP)
    names = {name.removeprefix("tiny-run/") for name in found}
    pages = {"README.md", "SETTINGS.json", "entry_points.md", "requirements.txt", "directory_structure.txt"}
    scripts = {"prepare_data.py", "train.py", "predict.py"}
    run = {f"models/tiny-run/{name}" for name in ("config.json", "manifest.json", "metrics.jsonl", "result.json",
                                                  "weights.safetensors")}  # fmt: skip
    code = {name for name in names if name.startswith("pipeline/")}
    assert names - code == pages | scripts | run | {"data/raw/", "data/processed/", "submissions/"}
    assert {"pipeline/preprocess.py", "pipeline/train.py", "pipeline/packing/templates/README.md.j2"} <= code
    assert all(Path(name).suffix in (".py", ".j2", ".css") for name in code)
    assert leaks({**found, "said": (result.stdout + result.stderr).encode()}) == []
    for name, content in found.items():
        for secret in (place, ROOT, Path.home()):
            assert str(secret).encode() not in content, name
    weights = place / "data/models/tiny-run/weights.safetensors"
    assert found["tiny-run/models/tiny-run/weights.safetensors"] == weights.read_bytes()


def test_its_pages_are_whole(place: Path) -> None:
    assert here("package", cwd=place).returncode == 0
    found = {name.removeprefix("tiny-run/"): content.decode() for name, content in contents(place / ZIP).items()
             if name.endswith((".md", ".txt", ".json"))}  # fmt: skip
    readme = found["README.md"]
    headings = ["Hardware", "Software", "Data", "Training and prediction", "Side effects", "Assumptions"]
    assert [heading for heading in headings if f"\n## {heading}\n" not in readme] == []
    assert FileRecord.of(place / "submissions/tiny-run.csv").sha256 in readme
    raw = [path for path in (place / "source").rglob("*") if path.is_file()]
    for path in raw:  # the very files that it was learned from
        assert f"| `{path.relative_to(place / 'source').as_posix()}` | `{FileRecord.of(path).sha256}` |" in readme
    assert not re.search(r"\{\{|\}\}|\{%|\n\n\n|None", readme + found["entry_points.md"])
    assert all("==" in line or line.startswith("# ") for line in found["requirements.txt"].splitlines())
    assert "./models/tiny-run" in found["directory_structure.txt"].splitlines()


def test_the_same_command_finds_it_complete_and_another_time_makes_the_same_bytes(place: Path) -> None:
    shadow = place / "torch.py"
    shadow.write_text("raise SystemExit('torch was imported')\n")  # found before the real one
    first = stage("package", "--run", "tiny-run", cwd=place)
    assert first.returncode == 0, first.stderr
    assert f"-> {ZIP}" in first.stdout
    before = (place / ZIP).stat().st_ino, (place / ZIP).read_bytes()
    again = here("package", cwd=place)
    assert f"{ZIP} is complete" in again.stdout and "nothing to do" in again.stdout
    assert ((place / ZIP).stat().st_ino, (place / ZIP).read_bytes()) == before
    for path in (place / "data/models/tiny-run").iterdir():
        os.utime(path, (1e9, 1e9))
    assert here("package", "--force", cwd=place).returncode == 0
    assert (place / ZIP).stat().st_ino != before[0] and (place / ZIP).read_bytes() == before[1]


def test_an_older_package_of_the_run_is_replaced(place: Path) -> None:
    assert here("package", cwd=place).returncode == 0
    before = (place / ZIP).read_bytes()
    predict(paths_in(place), print, device="cpu", tta="flip", out=place / "flip.csv")
    assert here("package", "--csv", "flip.csv", cwd=place).returncode == 0
    assert (place / ZIP).read_bytes() != before
    assert b'"--tta", "flip"' in contents(place / ZIP)["tiny-run/predict.py"]


def test_of_an_ensemble_all_runs_are_packed(place: Path) -> None:
    write_run(place, "b-run", seed=1)
    csv = predict(paths_in(place), print, names=["tiny-run", "b-run"], device="cpu").csv
    by_runs = here("package", "--run", "tiny-run", "b-run", cwd=place)
    assert by_runs.returncode == 0, by_runs.stderr
    path = place / f"data/packages/{csv.stem}.zip"
    names = {name.split("/")[2] for name in contents(path) if "/models/" in name and "/pipeline/" not in name}
    assert names == {"b-run", "tiny-run"}
    assert "nothing to do" in here("package", "--csv", csv.relative_to(place), cwd=place).stdout


def test_without_the_data_it_is_packed_too(place: Path) -> None:
    shutil.rmtree(place / "data/processed")
    shutil.rmtree(place / "data/raw")
    assert here("package", cwd=place).returncode == 0
    assert b"The files that were used" not in contents(place / ZIP)["tiny-run/README.md"]


# --- what is refused --------------------------------------------------------------------------------------


def edit(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda place: (place / path).write_bytes(change((place / path).read_bytes()))


def with_pretrained(place: Path) -> None:
    shutil.copytree(ROOT / "data/pretrained", place / "data/pretrained")


def retrain(place: Path) -> None:
    write_run(place, seed=7)


def enlarge(place: Path) -> None:
    """As `train --baseline` leaves a run over the budget."""
    folder = place / "data/models/tiny-run"
    values = json.loads((folder / "result.json").read_text())
    atomic.write_json(folder / "result.json", {**values, "trainable_parameters": 11_000_000})
    manifest = json.loads((folder / "manifest.json").read_text())
    record = FileRecord.of(folder / "result.json")
    manifest["files"]["result.json"] = {"size": record.size, "sha256": record.sha256}
    atomic.write_json(folder / "manifest.json", manifest)


def of_another_competition(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    card = json.loads(csv.with_suffix(".json").read_text())
    atomic.write_json(csv.with_suffix(".json"), {**card, "competition": "other"})


def nothing(_place: Path) -> None: ...


WEIGHTS = "data/models/tiny-run/weights.safetensors"
REFUSALS: dict[str, tuple[Callable[[Path], object], list[str], int, str]] = {
    "no CSV": (lambda p: (p / "submissions/tiny-run.csv").unlink(), [], 3, "python -m pipeline.predict --run tiny-run"),
    "no such CSV": (nothing, ["--csv", "x.csv"], 3, "`python -m pipeline.predict --out x.csv` writes it"),
    "no such CSV with a space": (nothing, ["--csv", "a b.csv"], 3, "pipeline.predict --out 'a b.csv'` writes it"),
    "no such run": (nothing, ["--run", "tiny"], 3, "did you mean tiny-run"),
    "an edited CSV": (edit("submissions/tiny-run.csv", lambda c: c + b"999,1\n"), [], 4, "edited since predict wrote"),
    "no sidecar": (lambda p: (p / "submissions/tiny-run.json").unlink(), [], 4, "was not written by predict"),
    "trained again": (retrain, [], 4, "not predicted with the weights that tiny-run has now"),
    "damaged weights": (edit(WEIGHTS, lambda c: c[:-1] + b"\x01"), [], 4, f"{WEIGHTS} is missing or damaged"),
    "another competition": (of_another_competition, [], 2, "is for other"),
    "pretrained": (with_pretrained, ["--run", "pretrained"], 2, "forbids pretrained weights"),
    "over the budget": (enlarge, [], 2, "11,000,000 trainable parameters are over"),
    "another run": (nothing, ["--run", "a", "--csv", "submissions/tiny-run.csv"], 2, "predicted by tiny-run, not by"),
    "no zip's name": (nothing, ["--out", "a.tar"], 2, "the name must end in .zip"),
    "somebody's zip": (lambda p: (p / "a.zip").write_bytes(b"mine"), ["--out", "a.zip"], 2, "a.zip is no package"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_would_be_no_winners_package_is_refused(place: Path, case: str) -> None:
    change, arguments, code, message = REFUSALS[case]
    change(place)
    before = {path: path.read_bytes() for path in place.rglob("*.zip")}
    assert message in error_line(here("package", *arguments, cwd=place), code)
    assert {path: path.read_bytes() for path in place.rglob("*.zip")} == before


def test_the_sidecar_of_an_older_version_will_do(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    card = json.loads(csv.with_suffix(".json").read_text())
    for name in ("runs", "tta", "adapt", "measure", "pseudo_labels", "mirrored", "submittable"):
        del card[name]
    card["versions"] = {}
    atomic.write_json(csv.with_suffix(".json"), card)
    assert Sidecar.read(csv) is not None
    assert here("package", cwd=place).returncode == 0
