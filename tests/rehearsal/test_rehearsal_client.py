"""The genuine `kaggle` client against the mock server, as a user would run it."""

import csv
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.rehearsal.mock import mock_kaggle

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    served = tmp_path / "real"
    (served / "cifar-10-python").mkdir(parents=True)
    (served / "cifar-10-python" / "test_batch").write_bytes(bytes(range(256)) * 12_000)
    (served / "cifar_test_nolabel.pkl").write_bytes(b"not really")
    return served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's working folder, with a real-looking token that nobody must use."""
    folder = tmp_path / "home"
    (folder / ".kaggle").mkdir(parents=True)
    (folder / ".kaggle" / "access_token").write_text("the-users-own-token")
    return folder


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


def test_submit_and_look_in_the_next_rehearsal(folder: Path, home: Path, tmp_path: Path) -> None:
    labels = home / "good.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
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
        listed = client(again.environment, home, "submissions", SLUG, "-v").stdout
        limits = client(again.environment, home, "submission-limits", SLUG)
    bad, good = csv.DictReader(listed.splitlines())
    assert (bad["fileName"], bad["description"], bad["status"]) == ("bad.csv", "a bad one", "SubmissionStatus.ERROR")
    assert (good["fileName"], good["publicScore"], good["privateScore"]) == ("good.csv", "1.00000", "1.00000")
    assert "Remaining today: 18" in limits.stdout
    assert "the-users-own-token" not in (tmp_path / "state" / "state.json").read_text()
