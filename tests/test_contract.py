"""What does not change: commands, flags, files, JSON keys, exit codes; and what an earlier version wrote is read.

`tests/old/` holds a run, a CSV with its sidecar and saved probabilities, and a ledger, as version 7155faa wrote them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import errors
from pipeline.store import ledger
from tests.support import ROOT, SLUG, here, prepare, tree
from tests.test_consistency import NAMES, commands, flags

OLD = ROOT / "tests/old"
FOLDERS = "--processed --models"
OURS = f"{FOLDERS} --submissions"
RECIPE = (
    "--preset --model --validation --validation-fraction --epochs --batch-size --seed --optimizer "
    "--learning-rate --momentum --weight-decay --decay-norms --no-decay-norms --schedule --warmup-epochs "
    "--early-stopping --label-smoothing --dropout --ema-decay --crop-padding --flip --cutout --mixup --cutmix "
    "--distillation-weight --distillation-temperature"
)
FLAGS = {
    "download": "--competition --raw --from --timeout --force",
    "preprocess": "--competition --raw --processed --ids-key --force",
    "train": f"--competition {RECIPE} --teacher --pseudo-labels --rules-allow-pseudo-labels --allow-over-limit --run "
    f"--compile --device {FOLDERS} --force --dry-run",
    "predict": f"--run --tta --adapt --competition --out --batch-size --device {OURS} --force",
    "submit": f"--csv --competition --again --wait --poll --timeout {OURS}",
    "check": f"--competition --csv --json --fail-over --wait --pictures --timeout {OURS}",
    "report": f"--run --out {OURS} --force",
    "status": f"--competition --json --raw {OURS}",
    "sweep": "--competition --preset --epochs --seed --search --trials --name --storage --heartbeat --keep --device "
    f"{FOLDERS}",
    "model": "--model --json",
    "kernel push": f"--competition {RECIPE} --run --internet --accelerator --wait --poll --timeout --models "
    "--submissions --force --dry-run",
    "kernel fetch": "--run --wait --poll --timeout --models --submissions --force",
    "rehearsal": "--folder --labels --state",
}
CHOICES = {
    ("predict", "--adapt"): {"auto", "none", "bn", "revert", "prior"},
    ("predict", "--tta"): {"none", "flip", "flip-shift"},
    ("train", "--preset"): {"paper", "fast", "strong", "best", "rehearsal"},
    ("train", "--compile"): {"auto", "yes", "no"},
    ("train", "--validation"): {"test_batch", "split"},
}
EXIT_CODES = "PipelineError UsageError MissingInput BadData AccessDenied NetworkError SubmissionLimit ScoringError"
KEYS = {
    "check": "competition run ref status local validation public private gap public_rows rows_assumed noise "
    "line_expects optimistic not_asked submissions csv predicted interval by methods refused reliable doubts "
    "temperature verdict diagnosis trials measure advice pictures not_judged predictions",
    "status": "competition raw processed runs csvs report ledger latest_problem others next why wait",
}


# --- commands -----------------------------------------------------------------------------------------------


def test_no_command_has_gone() -> None:
    assert set(NAMES) == set(FLAGS)


def test_no_flag_has_gone() -> None:
    for name, kept in FLAGS.items():
        assert {*kept.split(), "--debug", "-h", "--help"} - flags(name) == set(), name


def test_the_choices_are_these() -> None:
    for (name, flag), kept in CHOICES.items():
        (option,) = [p for p in commands()[name].params if flag in p.opts]
        assert set(option.to_info_dict()["type"]["choices"]) == kept, flag


def test_the_exit_codes_are_these() -> None:
    assert [getattr(errors, name).exit_code for name in EXIT_CODES.split()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert errors.INTERRUPTED == 130


def test_ci_calls_what_a_person_calls() -> None:
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec tests/run.sh")


# --- files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which this version did everything up to the CSV; the run and the CSV are called as the old ones."""
    cwd = prepare(tmp_path_factory.mktemp("made"))
    recipe = ["--preset", "rehearsal", "--epochs", "2", "--batch-size", "32", "--device", "cpu"]
    for name, *options in (("train", "--competition", SLUG, *recipe, "--run", "old-run"), ("predict", "--adapt", "bn")):
        result = here(name, *options, cwd=cwd)
        assert result.returncode == 0, result.stderr
    return cwd


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with the data, and what the old version made of it."""
    cwd = prepare(tmp_path)
    shutil.copytree(OLD / "models", cwd / "data/models")
    shutil.copytree(OLD / "submissions", cwd / "submissions")
    (cwd / "data/models/LATEST").write_text("old-run\n")
    return cwd


def keys(value: Any) -> Any:
    """The keys of a JSON value, nested; what numbers and names they lead to is another matter."""
    free = ("versions", "files", "runs", "examination")
    return {k: None if k in free else keys(v) for k, v in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("name", ["models/old-run/result.json", "models/old-run/manifest.json"])
def test_a_runs_files_keep_their_keys(made: Path, name: str) -> None:
    assert keys(json.loads((made / "data" / name).read_text())) == keys(json.loads((OLD / name).read_text()))


def test_a_runs_folder_keeps_its_files(made: Path) -> None:
    old, new = (set(tree(folder / "models/old-run")) for folder in (OLD, made / "data"))
    assert old | {"checkpoint.pt"} <= new
    assert new - old <= {"checkpoint.pt", "execution.json"} | {name for name in new if name.startswith("tensorboard/")}
    first, card = json.loads((OLD / "models/old-run/config.json").read_text()), made / "data/models/old-run/config.json"
    assert set(json.loads(card.read_text())) == set(first)
    rows = [(folder / "models/old-run/metrics.jsonl").read_text().splitlines()[0] for folder in (OLD, made / "data")]
    assert keys(json.loads(rows[0])) == keys(json.loads(rows[1]))


def test_the_processed_folder_keeps_its_files(made: Path) -> None:
    arrays = {f"{part}_{kind}.npy" for part in ("train", "test") for kind in ("images", "labels")}
    hidden = {"hidden_images.npy", "hidden_ids.npy"}
    assert set(tree(made / "data/processed" / SLUG)) == {*arrays, *hidden, "manifest.json"}


def test_the_submission_keeps_its_files_and_keys(made: Path) -> None:
    assert set(tree(made / "submissions")) == {"ledger.csv", "old-run.csv", "old-run.json", "old-run.npz"}
    old, new = OLD / "submissions", made / "submissions"
    assert keys(json.loads((new / "old-run.json").read_text())) == keys(json.loads((old / "old-run.json").read_text()))
    for name in ("ledger.csv", "old-run.csv"):
        assert (new / name).read_text().splitlines()[0] == (old / name).read_text().splitlines()[0]
    with np.load(old / "old-run.npz") as first, np.load(new / "old-run.npz") as second:
        assert set(first.files) == set(second.files)
        assert {n: first[n].dtype.kind for n in first.files} == {n: second[n].dtype.kind for n in second.files}


@pytest.mark.parametrize("stage", ["check", "status"])
def test_json_keeps_its_keys(made: Path, stage: str) -> None:
    values = json.loads(here(stage, "--competition", SLUG, "--json", cwd=made).stdout)
    assert [key for key in KEYS[stage].split() if key not in values] == []


# --- what the old version wrote -------------------------------------------------------------------------------


def test_an_old_csv_is_assessed_with_todays_names(kept: Path) -> None:
    result = here("check", "--competition", SLUG, "--json", cwd=kept)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert (values["csv"], values["measure"], values["verdict"]) == ("submissions/old-run.csv", "bn", "corruption")
    assert [trial["measure"] for trial in values["trials"]] == ["bn", "revert", "prior"]
    assert values["predicted"] == pytest.approx(33.333) and values["methods"] == {}  # it is scored
    assert [damage["name"] for damage in values["diagnosis"]["pixels"]["damages"]] == ["contrast", "gaussian noise"]
    assert "; batch-norm adaptation is on (" in here("check", "--competition", SLUG, cwd=kept).stdout


def test_an_old_ledger_is_read_and_shown(kept: Path) -> None:
    entries = ledger.read(kept / "submissions/ledger.csv")
    assert [entry.status for entry in entries] == [
        "predicted", "sending", "pending", "complete", "complete", "error", "complete", "pending",
    ]  # fmt: skip
    values = json.loads(here("check", "--competition", SLUG, "--json", cwd=kept).stdout)
    assert [row["ref"] for row in values["submissions"]] == [90000001, 90000002, 90000003, 90000004]
    assert values["predictions"] and values["predictions"][0]["predicted"] == pytest.approx(33.333)
    before = (kept / "submissions/ledger.csv").read_bytes()
    ledger.append(kept / "submissions/ledger.csv", entries[:1])
    assert (kept / "submissions/ledger.csv").read_bytes().startswith(before)


def test_an_old_run_predicts_and_its_csv_is_complete(kept: Path) -> None:
    assert "nothing to do" in here("predict", "--adapt", "bn", cwd=kept).stdout
    before = tree(kept / "submissions")
    again = here("predict", "--adapt", "bn", "--out", "again.csv", "--device", "cpu", cwd=kept)
    assert again.returncode == 0, again.stderr
    assert (kept / "again.csv").read_bytes() == before["old-run.csv"]


def test_an_old_run_is_in_status_and_report(kept: Path) -> None:
    values = json.loads(here("status", "--competition", SLUG, "--json", cwd=kept).stdout)
    assert [(run["name"], run["state"], run["stale"]) for run in values["runs"]] == [("old-run", "finished", False)]
    assert [(csv["path"], csv["stale"], csv["problem"]) for csv in values["csvs"]] == [
        ("submissions/old-run.csv", "", "")
    ]
    assert here("report", cwd=kept).returncode == 0
