"""The genuine `kaggle` client against the stand-in, as a user would run it."""

import csv
import hashlib
import json
import re
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from tests.doubles.kaggle import FaultyKaggle, faulty_kaggle

CLIENT = Path(sys.executable).with_name("kaggle")
SLUG = "rehearsal-real"


def client(environment: Mapping[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLIENT, "-W", "competitions", *arguments],
        env={**environment, "HOME": str(cwd)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rows(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(output.splitlines()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    served = tmp_path / "real"
    (served / "cifar-10-python").mkdir(parents=True)
    (served / "cifar-10-python" / "test_batch").write_bytes(bytes(range(256)) * 12_000)
    (served / "cifar_test_nolabel.pkl").write_bytes(b"not really")
    return served


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's working folder, with a real-looking token that nobody must use."""
    folder = tmp_path / "home"
    (folder / ".kaggle").mkdir(parents=True)
    (folder / ".kaggle" / "access_token").write_text("the-users-own-token")
    return folder


@pytest.fixture
def kaggle(folder: Path, labels: Path, tmp_path: Path) -> Iterator[FaultyKaggle]:
    with faulty_kaggle(folder, tmp_path / "state", labels=labels) as running:
        yield running


def test_files_page_by_page(kaggle: FaultyKaggle, home: Path) -> None:
    first = client(kaggle.environment, home, "files", SLUG, "--page-size", "1", "-v")
    assert first.returncode == 0, first.stderr
    token = re.search("Next Page Token = (.*)", first.stdout)
    assert token is not None
    second = client(kaggle.environment, home, "files", SLUG, "--page-token", token.group(1), "-v")
    assert "cifar_test_nolabel.pkl" in second.stdout
    assert "test_batch" not in second.stdout
    assert kaggle.count("ListDataFiles") == 2
    assert kaggle.count("Offline") == 0


def test_download_goes_on_after_a_cut(folder: Path, home: Path, tmp_path: Path) -> None:
    with faulty_kaggle(folder, tmp_path / "state", faults=["DownloadDataFiles:cut=2000000*1"]) as kaggle:
        done = client(kaggle.environment, home, "download", SLUG, "-q")
        assert done.returncode == 0, done.stderr
        assert kaggle.count("Download") == 2
    with zipfile.ZipFile(home / f"{SLUG}.zip") as archive:
        assert archive.testzip() is None
        assert archive.read("cifar_test_nolabel.pkl") == b"not really"


def test_download_goes_on_in_another_process_and_another_rehearsal(folder: Path, home: Path, tmp_path: Path) -> None:
    with faulty_kaggle(folder, tmp_path / "state") as kaggle:
        assert client(kaggle.environment, home, "download", SLUG, "-q").returncode == 0
    target, archive = home / f"{SLUG}.zip", tmp_path / "state" / f"{SLUG}.zip"
    whole = target.read_bytes()
    assert whole == archive.read_bytes()
    target.write_bytes(whole[:1_000_000])
    identity = hashlib.sha256(f"{archive.name}\n{len(whole)}\n{archive.stat().st_mtime_ns}".encode()).hexdigest()
    marker = {"validator": f'"{identity[:32]}"', "size": len(whole)}
    target.with_name(f"{SLUG}.zip.kaggle-partial").write_text(json.dumps(marker))
    with faulty_kaggle(folder, tmp_path / "state") as kaggle:
        resumed = client(kaggle.environment, home, "download", SLUG)
        assert "Resuming from 1000000 bytes" in resumed.stdout
    assert target.read_bytes() == whole


def test_submit_and_look_in_the_next_rehearsal(folder: Path, labels: Path, home: Path, tmp_path: Path) -> None:
    (home / "good.csv").write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
    (home / "bad.csv").write_text("ID,Label\n0,1\n")
    with faulty_kaggle(folder, tmp_path / "state", labels=labels) as kaggle:
        for name in ("good", "bad"):
            done = client(kaggle.environment, home, "submit", SLUG, "-f", f"{name}.csv", "-m", f"a {name} one")
            assert done.returncode == 0, done.stderr
            assert f"Successfully submitted to {SLUG}" in done.stdout
        assert "18 submissions remaining today" in done.stdout
        assert kaggle.count("CreateSubmission") == kaggle.count("Upload") == 2
        # The stand-in's own token was used, not the one in the user's home.
        assert kaggle.count("IntrospectToken") == 2
    with faulty_kaggle(folder, tmp_path / "state", clock=lambda: time.time() + 2) as again:
        listed = rows(client(again.environment, home, "submissions", SLUG, "-v").stdout)
        limits = client(again.environment, home, "submission-limits", SLUG)
    assert [(row["fileName"], row["description"], row["status"].rpartition(".")[2]) for row in listed] == [
        ("bad.csv", "a bad one", "ERROR"),
        ("good.csv", "a good one", "COMPLETE"),
    ]
    assert (listed[1]["publicScore"], listed[1]["privateScore"]) == ("1.00000", "1.00000")
    assert "Remaining today: 18" in limits.stdout
    assert "the-users-own-token" not in (tmp_path / "state" / "state.json").read_text()


def test_another_competition_is_not_found(kaggle: FaultyKaggle, home: Path) -> None:
    done = client(kaggle.environment, home, "files", "titanic")
    assert done.returncode == 1
    assert f"Competition 'titanic' not found: this rehearsal serves '{SLUG}'" in done.stderr


def test_a_failure_on_demand_reaches_the_user(folder: Path, home: Path, tmp_path: Path) -> None:
    with faulty_kaggle(folder, tmp_path / "state", faults=["ListDataFiles:status=500"]) as kaggle:
        done = client(kaggle.environment, home, "files", SLUG)
    assert done.returncode == 1
    assert "This failure was ordered by a test" in done.stderr


def test_kaggle_s_own_url_with_tls_ended_here(folder: Path, home: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.kaggle.com").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with faulty_kaggle(folder, tmp_path / "state", tls=tls) as kaggle:
        assert "KAGGLE_API_ENVIRONMENT" not in kaggle.environment
        environment = {**kaggle.environment, "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")}
        (home / "s.csv").write_text("ID,Labels\n0,1\n")
        downloaded = client(environment, home, "download", SLUG, "-q")
        submitted = client(environment, home, "submit", SLUG, "-f", "s.csv", "-m", "over TLS")
        names = {call.name for call in kaggle.calls}
    assert downloaded.returncode == 0, downloaded.stderr
    assert zipfile.is_zipfile(home / f"{SLUG}.zip")
    assert "Successfully submitted" in submitted.stdout, submitted.stderr
    assert names == {
        "IntrospectToken", "DownloadDataFiles", "Download", "StartSubmissionUpload", "Upload",
        "CreateSubmission", "GetSubmissionLimits",
    }  # fmt: skip
