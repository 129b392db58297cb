"""The genuine `kaggle` client against the mock server, as a user would run it."""

import csv
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.rehearsal.mock import mock_kaggle
from tests.rehearsal.plain_http import SLUG, make_folder

CLIENT = Path(sys.executable).with_name("kaggle")


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
def home(tmp_path: Path) -> Path:
    """A user's working folder, with a real-looking token that nobody must use."""
    folder = tmp_path / "home"
    (folder / ".kaggle").mkdir(parents=True)
    (folder / ".kaggle" / "access_token").write_text("the-users-own-token")
    return folder


def test_submit_and_look_in_the_next_rehearsal(home: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    labels = home / "good.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
    (home / "bad.csv").write_text("ID,Label\n0,1\n")
    with mock_kaggle(folder, tmp_path / "state", labels=labels) as kaggle:
        for name in ("good", "bad"):
            done = client(kaggle.environment, home, "submit", SLUG, "-f", f"{name}.csv", "-m", f"a {name} one")
            assert done.returncode == 0, done.stderr
            assert f"Successfully submitted to {SLUG}" in done.stdout
        assert "18 submissions remaining today" in done.stdout
        assert kaggle.calls.count("CreateSubmission") == kaggle.calls.count("Upload") == 2
        # The mock server's token was used, not the one in the user's home.
        assert kaggle.calls.count("IntrospectToken") == 2
    with mock_kaggle(folder, tmp_path / "state") as again:
        again.state.pending_seconds = 0.0
        listed = client(again.environment, home, "submissions", SLUG, "-v").stdout
        limits = client(again.environment, home, "submission-limits", SLUG)
    bad, good = csv.DictReader(listed.splitlines())
    assert (bad["fileName"], bad["description"], bad["status"]) == ("bad.csv", "a bad one", "SubmissionStatus.ERROR")
    assert (good["fileName"], good["publicScore"], good["privateScore"]) == ("good.csv", "1.00000", "1.00000")
    assert "Remaining today: 18" in limits.stdout
    assert "the-users-own-token" not in (tmp_path / "state" / "state.json").read_text()
