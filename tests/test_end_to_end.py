"""The whole pipeline as a user runs it: run_all.sh, Kaggle's own URL; the rehearsal is README's first block."""

import json
import os
import shlex
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.doubles.kaggle import faulty_kaggle
from tests.readme import fresh_project, run
from tests.support import ROOT, SLUG, here, stage, write_download, write_run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_project(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "project", symlinks=True))


def run_all(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run(shlex.join(["./run_all.sh", *arguments]), project)


def test_it_stops_at_the_first_failing_stage_with_its_exit_code(project: Path) -> None:
    source = write_download(project.parent / "source")
    (source / "cifar_test_nolabel.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    result = run_all(project, "--competition", SLUG, "--data", str(source))
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
    result = run_all(project, *arguments)
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


def test_a_stages_help_ends_with_examples(tmp_path: Path) -> None:
    result = stage("train", "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "Examples:\n    python -m pipeline.train " in result.stdout


@pytest.mark.timeout(400)
def test_the_whole_way_at_kaggles_own_url(tmp_path: Path) -> None:
    """https://api.kaggle.com as a user hits it; a proxy leads it here, a throwaway CA vouches for us."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.kaggle.com").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    source = write_download(tmp_path / "source")
    labels = tmp_path / "labels.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100, 130)))
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG, labels=labels, tls=tls) as kaggle:
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
    result = run_all(project, "--rehearsal", "--data", os.environ["PIPELINE_REAL_DATA"], "--epochs", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no score" in result.stdout
