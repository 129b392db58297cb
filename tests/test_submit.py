import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import NetworkError
from pipeline.kaggle_api.client import Kaggle
from pipeline.store import ledger
from pipeline.store.submissions import Sidecar
from pipeline.submit import Sender
from tests.doubles.kaggle import FaultyKaggle
from tests.places import note
from tests.support import ROOT, SLUG, error_line, here, paths_in, serve, submit_by_hand, wait_until

pytestmark = pytest.mark.usefixtures("quick_client")
TIMES = {"wait": 20.0, "poll": 0.05, "settle": 0.2, "patience": 1.0, "look": 0.05}


def send(
    place: Path, kaggle: FaultyKaggle, *, again: bool = False, sleep: Callable[[float], None] = time.sleep,
    **times: Any,
) -> ledger.Entry:  # fmt: skip
    client = Kaggle(kaggle.environment, timeout=8, attempts=3, backoff=0.01, sleep=sleep)
    sender = Sender(paths_in(place), client, print, **{**TIMES, **times})
    return sender.submit(place / "submissions/tiny-run.csv", again=again)


def entries(place: Path) -> list[ledger.Entry]:
    """What became of submissions; the line of the prediction, which is older than any, left out."""
    return [e for e in ledger.read(place / "submissions/ledger.csv") if e.status != ledger.PREDICTED]


def test_the_command_submits_once_and_waits_for_its_own_score(place: Path) -> None:
    with serve(place, pending=0.5) as kaggle:
        first = here("submit", "--poll", "0.1", cwd=place, environ=kaggle.environment)
        assert first.returncode == 0, first.stderr
        assert first.stdout.startswith("ref 90000001 (complete): public ")
        assert first.stdout.splitlines()[-1] == f"next: python -m pipeline.check --competition {SLUG}"
        again = here("submit", cwd=place, environ=kaggle.environment)
        assert "not sending it twice" in again.stderr
        assert kaggle.calls.count("CreateSubmission") == 1
        noted = entries(place)
        assert send(place, kaggle, again=True).ref != noted[-1].ref
        assert kaggle.calls.count("CreateSubmission") == 2
    assert [entry.status for entry in noted] == ["sending", "pending", "complete"]
    entry = noted[-1]
    assert (entry.run, entry.local_validation, entry.local_test) == ("tiny-run", 91.0, 90.0)
    assert entry.public is not None and entry.private is not None and entry.gap_public is not None


def test_again_waits_for_a_submission_whose_end_nobody_saw(place: Path) -> None:
    with serve(place, pending=0.5) as kaggle:
        first = send(place, kaggle, wait=0.0)
        assert (first.status, first.ref) == ("pending", 90000001)
        again = send(place, kaggle, again=True)
        assert (again.status, again.ref) == ("complete", 90000001)
        assert send(place, kaggle, again=True).ref == 90000002
        assert kaggle.calls.count("CreateSubmission") == 2


def test_a_ref_that_is_another_submissions_is_not_taken_for_ours(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (place / "submissions/tiny-run.csv").read_text()
    (place / "other.csv").write_text(rows[:-2] + "0\n" if rows[-2] != "0" else rows[:-2] + "1\n")
    with serve(place) as kaggle:
        submit_by_hand(place, kaggle, "other.csv")
        monkeypatch.setattr(Kaggle, "submit", lambda *_: 90000001)  # and nothing came of it
        with pytest.raises(NetworkError, match="which is another submission"):
            send(place, kaggle)
    assert not [entry for entry in entries(place) if entry.run and entry.ref is not None]


def test_a_run_that_is_killed_while_kaggle_is_at_work_on_its_submission_is_not_followed_by_a_second(
    place: Path,
) -> None:
    with serve(place, "CreateSubmission:hang=2*1") as kaggle:
        command = [sys.executable, "-m", "pipeline.submit"]
        environ = {**kaggle.environment, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=place, env=environ, stdout=subprocess.DEVNULL) as process:
            wait_until(lambda: kaggle.calls.count("CreateSubmission"))
            process.kill()
        assert kaggle.state.submissions() == []
        entry = send(place, kaggle, patience=60.0)
        assert kaggle.calls.count("CreateSubmission") == 1
    assert (entry.status, entry.run) == ("complete", "tiny-run")


@pytest.mark.parametrize(
    ("now", "seconds"),
    [("2030-01-01T00:00:30+00:00", 60), ("2030-01-01T00:01:30+00:00", 0), ("2029-12-31T00:00:00+00:00", 90)],
    ids=["soon", "later", "by a clock that was put back"],
)
def test_what_an_earlier_run_sent_is_looked_for_as_long_as_it_may_turn_up(place: Path, now: str, seconds: int) -> None:
    slept = [0.0]
    times: dict[str, Any] = {"patience": 90.0, "look": 30.0, "sleep": slept.append, "monotonic": lambda: sum(slept)}
    note(place / "submissions/tiny-run.csv", ledger.SENDING, ref=None, time="2030-01-01T00:00:00+00:00")
    with serve(place) as kaggle:
        assert send(place, kaggle, now=lambda: datetime.fromisoformat(now), **times).status == "complete"
        assert len(kaggle.state.submissions()) == 1
    assert sum(slept) == seconds


def test_a_refused_submission_is_noted_with_its_reason_and_is_none(place: Path) -> None:
    with serve(place, "CreateSubmission:status=400*1") as kaggle:
        run = partial(here, cwd=place, environ=kaggle.environment)
        assert "Kaggle refused the request (400" in error_line(run("submit"), 4)
        told = run("check", "--competition", SLUG, "--verbose").stdout
        assert "* -: Kaggle refused the request (400" in told
        state = json.loads(run("status", "--competition", SLUG, "--json").stdout)
        assert (state["csvs"][0]["submission"], state["ledger"]["open"], state["ledger"]["total"]) == ("refused", 0, 0)
        assert "pipeline.submit" in state["next"]
        assert run("submit").returncode == 0
    noted = [(entry.status, entry.note[:14]) for entry in entries(place)]
    assert noted == [("sending", ""), ("error", "Kaggle refused"), ("sending", ""), ("pending", ""), ("complete", "")]


def test_bundled_weights_are_not_submitted(place: Path) -> None:
    (sidecar,) = (place / "submissions").glob("*.json")
    values = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**values, "run": "pretrained-strong", "runs": {"pretrained-strong": "0" * 64}}))
    told = error_line(here("submit", "--csv", "submissions/tiny-run.csv", cwd=place), 2)
    assert "comes from bundled weights, which the rules forbid: train, and submit your own" in told


def test_what_kaggle_does_not_take_is_sent_three_times(place: Path) -> None:
    with serve(place, "CreateSubmission:status=429,retry=0") as kaggle:
        with pytest.raises(NetworkError, match="busy or down"):
            send(place, kaggle, settle=0.0)
        assert kaggle.calls.count("CreateSubmission") == 3


def test_kaggle_makes_nobody_wait_for_longer_than_five_minutes(place: Path) -> None:
    slept = [0.0]
    with serve(place, "CreateSubmission:status=429,retry=9999*1") as kaggle:
        entry = send(place, kaggle, look=100.0, sleep=slept.append, monotonic=lambda: sum(slept))
    assert entry.status == "complete" and sum(slept) == pytest.approx(300, abs=1)


def test_what_is_no_valid_submission_is_refused_before_anything_is_sent(place: Path) -> None:
    csv, elsewhere = place / "submissions/tiny-run.csv", place / "other.csv"
    known = Sidecar.read(csv)
    assert known is not None
    with serve(place) as kaggle:

        def refused(code: int, *arguments: object) -> str:
            return error_line(here("submit", *arguments, cwd=place, environ=kaggle.environment), code)

        assert "no Kaggle credentials" in error_line(here("submit", cwd=place), 5)
        assert "was predicted for tiny, not for --competition other" in refused(2, "--competition", "other")
        dataclasses.replace(known, submittable=False).write(csv)
        assert "over the competition's 5,000,000" in refused(2)
        csv.write_text(csv.read_text().replace("100,", "999,"))
        assert "was edited after" in refused(4, "--competition", SLUG)
        csv.rename(elsewhere)
        assert "first: 100" in refused(4, "--csv", elsewhere, "--competition", SLUG)
        assert kaggle.calls == [] and entries(place) == []
