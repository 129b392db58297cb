"""The whole pipeline as a user runs it: run_all.sh, the rehearsal, Kaggle's own URL."""

import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from pipeline.rehearsal.standin import standin
from tests.support import ROOT, SLUG, clean_environment, here, stage, tree, write_download, write_run

STAGES = ("download", "preprocess", "train", "predict", "submit", "check")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project without anything that was made in it, its requirements found installed."""
    project = tmp_path_factory.mktemp("pristine") / "project"
    shutil.copytree(ROOT / "pipeline", project / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run_all.sh", "requirements.txt"):
        shutil.copy(ROOT / name, project / name)
    assert run(project, "--setup").returncode == 0
    return project


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "project"))


def run(project: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["./run_all.sh", *arguments],
        cwd=project,
        env={**clean_environment(), "PIPELINE_PYTHON": sys.executable, **environ},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_the_rehearsal_ends_with_the_table_and_the_second_time_redoes_nothing(project: Path) -> None:
    first = run(project, "--rehearsal", "--epochs", "3", "--device", "cpu")
    assert first.returncode == 0, first.stdout + first.stderr
    stages = [line for line in first.stdout.splitlines() if line.startswith("== ")]
    assert stages == [f"== {name}" for name in STAGES]
    table = first.stdout[first.stdout.index("== check") :]
    for word in ("validation", "local", "public", "private", "gap", "complete"):
        assert word in table

    before = {name: data for name, data in tree(project).items() if "rehearsal-digits.zip" not in name}
    second = run(project, "--rehearsal", "--epochs", "3", "--device", "cpu")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("nothing to") == 4
    assert "not sending it twice" in second.stdout
    after = tree(project)
    assert {name: after[name] for name in before} == before

    # By hand, as the README says: the state of the stand-in persists between calls.
    by_hand = "kaggle competitions submit -c rehearsal-digits -f submissions/sub.csv -m hello"
    for path in (project / "submissions").glob("rehearsal-*"):  # what `predict --out submissions/sub.csv` would write
        shutil.copy(path, path.with_stem("sub"))
    sent = stage("rehearsal", "--", *by_hand.split(), cwd=project)
    assert "Successfully submitted" in sent.stdout, sent.stderr
    found = stage("rehearsal", "--", "python", "-m", "pipeline.check", "--json", cwd=project)
    newest = json.loads(found.stdout)
    assert newest["ref"] == 90_000_002 and newest["public"] > 10 and newest["gap"] is not None


def test_it_stops_at_the_first_failing_stage_with_its_exit_code(project: Path) -> None:
    source = write_download(project.parent / "source")
    (source / "cifar_test_nolabel.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    result = run(project, "--competition", SLUG, "--data", str(source))
    assert result.returncode == 4
    assert "== preprocess" in result.stdout and "== train" not in result.stdout
    assert not (project / "canary").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--nonsense"], 2),
        (["--epochs"], 2),
        (["--data", "nowhere"], 2),
        (["--rehearsal", "--competition", "x"], 2),
    ],
)
def test_wrong_usage_of_the_script(project: Path, arguments: list[str], code: int) -> None:
    result = run(project, *arguments)
    assert result.returncode == code
    assert result.stderr.startswith("error: ")


def test_help_shows_the_options_with_examples_and_does_nothing_else() -> None:
    result = subprocess.run([ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True)
    for option in (
        "--competition",
        "--preset",
        "--epochs",
        "--run",
        "--device",
        "--data",
        "--submit",
        "Examples:",
    ):
        assert option in result.stdout


@pytest.mark.parametrize(
    "name", ["download", "preprocess", "train", "predict", "submit", "check", "model", "rehearsal"]
)
def test_every_stage_has_help_with_examples(tmp_path: Path, name: str) -> None:
    result = stage(name, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"python -m pipeline.{name}" in result.stdout and "Examples:" in result.stdout


def test_the_whole_way_at_kaggles_own_url(tmp_path: Path) -> None:
    """https://api.kaggle.com as a user hits it; a proxy leads it here, a throwaway CA vouches for us."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.kaggle.com").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    source = write_download(tmp_path / "source")
    labels = tmp_path / "labels.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100, 130)))
    with standin(source, tmp_path / "state", slug=SLUG, labels=labels, tls=tls) as kaggle:
        environ = {
            **kaggle.environment,
            "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem"),
            "PIPELINE_COMPETITION": SLUG,
        }
        assert "KAGGLE_API_ENVIRONMENT" not in environ
        assert stage("download", cwd=tmp_path, environ=environ).returncode == 0
        assert here("preprocess", cwd=tmp_path, environ=environ).returncode == 0
        write_run(tmp_path)
        assert here("predict", cwd=tmp_path, environ=environ).returncode == 0
        result = stage("submit", cwd=tmp_path, environ=environ)
        assert result.returncode == 0, result.stderr
        checked = json.loads(stage("check", "--json", cwd=tmp_path, environ=environ).stdout)
        assert kaggle.count("CreateSubmission") == 1 and kaggle.count("Offline") == 0
    assert checked["run"] == "tiny-run" and checked["public"] is not None


@pytest.mark.skipif(
    "PIPELINE_REAL_DATA" not in os.environ,
    reason="set PIPELINE_REAL_DATA to a folder laid out like the real download to rehearse on it (minutes)",
)
def test_real_images_go_the_whole_way(project: Path) -> None:
    result = run(project, "--rehearsal", "--data", os.environ["PIPELINE_REAL_DATA"], "--epochs", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no score" in result.stdout
