"""The genuine `kaggle` client against the mock server, as a user would run it."""

import csv
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.rehearsal.mock import MockKaggle, mock_kaggle

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
def kaggle(folder: Path, labels: Path, tmp_path: Path) -> Iterator[MockKaggle]:
    with mock_kaggle(folder, tmp_path / "state", labels=labels) as running:
        yield running


def test_files_page_by_page(kaggle: MockKaggle, home: Path) -> None:
    first = client(kaggle.environment, home, "files", SLUG, "--page-size", "1", "-v")
    assert first.returncode == 0, first.stderr
    token = re.search("Next Page Token = (.*)", first.stdout)
    assert token is not None
    second = client(kaggle.environment, home, "files", SLUG, "--page-token", token.group(1), "-v")
    assert "cifar_test_nolabel.pkl" in second.stdout
    assert "test_batch" not in second.stdout
    assert kaggle.count("ListDataFiles") == 2
    assert kaggle.count("Offline") == 0


def test_download_goes_on_in_another_process_and_another_rehearsal(folder: Path, home: Path, tmp_path: Path) -> None:
    with mock_kaggle(folder, tmp_path / "state") as kaggle:
        assert client(kaggle.environment, home, "download", SLUG, "-q").returncode == 0
    target, archive = home / f"{SLUG}.zip", tmp_path / "state" / f"{SLUG}.zip"
    whole = target.read_bytes()
    assert whole == archive.read_bytes()
    target.write_bytes(whole[:1_000_000])
    identity = hashlib.sha256(f"{archive.name}\n{len(whole)}\n{archive.stat().st_mtime_ns}".encode()).hexdigest()
    marker = {"validator": f'"{identity[:32]}"', "size": len(whole)}
    target.with_name(f"{SLUG}.zip.kaggle-partial").write_text(json.dumps(marker))
    with mock_kaggle(folder, tmp_path / "state") as kaggle:
        resumed = client(kaggle.environment, home, "download", SLUG)
        assert "Resuming from 1000000 bytes" in resumed.stdout
    assert target.read_bytes() == whole


def test_submit_and_look_in_the_next_rehearsal(folder: Path, labels: Path, home: Path, tmp_path: Path) -> None:
    (home / "good.csv").write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
    (home / "bad.csv").write_text("ID,Label\n0,1\n")
    with mock_kaggle(folder, tmp_path / "state", labels=labels) as kaggle:
        for name in ("good", "bad"):
            done = client(kaggle.environment, home, "submit", SLUG, "-f", f"{name}.csv", "-m", f"a {name} one")
            assert done.returncode == 0, done.stderr
            assert f"Successfully submitted to {SLUG}" in done.stdout
        assert "18 submissions remaining today" in done.stdout
        assert kaggle.count("CreateSubmission") == kaggle.count("Upload") == 2
        # The mock server's token was used, not the one in the user's home.
        assert kaggle.count("IntrospectToken") == 2
    with mock_kaggle(folder, tmp_path / "state", clock=lambda: time.time() + 2) as again:
        listed = rows(client(again.environment, home, "submissions", SLUG, "-v").stdout)
        limits = client(again.environment, home, "submission-limits", SLUG)
    assert [(row["fileName"], row["description"], row["status"].rpartition(".")[2]) for row in listed] == [
        ("bad.csv", "a bad one", "ERROR"),
        ("good.csv", "a good one", "COMPLETE"),
    ]
    assert (listed[1]["publicScore"], listed[1]["privateScore"]) == ("1.00000", "1.00000")
    assert "Remaining today: 18" in limits.stdout
    assert "the-users-own-token" not in (tmp_path / "state" / "state.json").read_text()
