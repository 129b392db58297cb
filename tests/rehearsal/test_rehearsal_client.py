"""The official `kaggle` client against the mock server, as a user would run it."""

import subprocess
import sys
from pathlib import Path

from pipeline.rehearsal.mock import mock_kaggle
from tests.rehearsal.plain_http import SLUG, make_folder

CLIENT = Path(sys.executable).with_name("kaggle")


def test_a_submission_by_hand_is_listed_and_the_users_own_token_stays_at_home(tmp_path: Path) -> None:
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle/access_token").write_text("the-users-own-token")
    labels = tmp_path / "good.csv"
    labels.write_text("ID,Labels\n" + "".join(f"{i},{i % 10}\n" for i in range(100)))
    with mock_kaggle(make_folder(tmp_path), tmp_path / "state", labels=labels) as kaggle:
        kaggle.state.pending_seconds = 0.0
        environ = {**kaggle.environment, "HOME": str(tmp_path)}
        shown = []
        for command in (f"submit {SLUG} -f good.csv -m hello", f"submissions {SLUG} -v"):
            words = [str(CLIENT), "-W", "competitions", *command.split()]
            shown.append(subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True))
        assert kaggle.calls.count("IntrospectToken") == 2  # with the mock server's token
    assert "19 submissions remaining today" in shown[0].stdout
    assert "good.csv" in shown[1].stdout and "SubmissionStatus.COMPLETE,1.00000,1.00000" in shown[1].stdout
    assert "the-users-own-token" not in (tmp_path / "state/state.json").read_text()
