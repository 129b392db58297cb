import dataclasses
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import NetworkError, PipelineError, ScoringError, SubmissionLimit
from pipeline.gap import ledger
from pipeline.kaggle_api.client import Kaggle
from pipeline.rehearsal.standin import StandIn
from pipeline.rehearsal.state import Settings
from pipeline.store.sidecar import Sidecar
from pipeline.submit import Clock, submit
from tests.support import SLUG, error_line, paths_in, predicted_place, serve, stage, submit_by_hand

CLOCK = Clock(deadline=20, poll=0.05, settle=0.2, patience=1.0, look=0.05)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return predicted_place(tmp_path)


def send(place: Path, kaggle: StandIn, clock: Clock = CLOCK, *, again: bool = False) -> ledger.Entry:
    client = Kaggle(kaggle.environment, timeout=8, attempts=3, backoff=0.01)
    csv = place / "submissions/tiny-run.csv"
    return submit(csv, paths_in(place), client, print, again=again, clock=clock).entry


def book(place: Path) -> list[ledger.Entry]:
    """What became of submissions; the line of the prediction, which is older than any, left out."""
    return [e for e in ledger.read(place / "submissions/ledger.csv") if e.status != ledger.PREDICTED]


def test_the_command_submits_once_and_waits_for_its_own_score(place: Path) -> None:
    with serve(place, settings=Settings(pending_seconds=0.5)) as kaggle:
        first = stage("submit", "--poll", "0.1", cwd=place, environ=kaggle.environment)
        assert first.returncode == 0, first.stderr
        assert "is scored: public " in first.stdout
        again = stage("submit", cwd=place, environ=kaggle.environment)
        assert "not sending it twice" in again.stdout
        assert kaggle.count("CreateSubmission") == 1
    states = [entry.status for entry in book(place)]
    assert states == ["sending", "pending", "complete"]
    entry = book(place)[-1]
    assert (entry.run, entry.local_validation, entry.local_test) == ("tiny-run", 91.0, 90.0)
    assert entry.public is not None and entry.private is not None and entry.gap_public is not None


def test_again_costs_another_submission(place: Path) -> None:
    with serve(place) as kaggle:
        first = send(place, kaggle)
        second = send(place, kaggle, again=True)
        assert kaggle.count("CreateSubmission") == 2
    assert first.ref != second.ref


@pytest.mark.parametrize("fault", ["CreateSubmission:accepted-then=500*1", "CreateSubmission:accepted-then=cut*1"])
def test_an_answer_that_was_lost_does_not_make_a_second_submission(place: Path, fault: str) -> None:
    with serve(place, fault) as kaggle:
        entry = send(place, kaggle)
        assert kaggle.count("CreateSubmission") == 1
    assert entry.status == "complete"


@pytest.mark.parametrize(
    "fault", ["CreateSubmission:status=500*1", "Upload:status=503*1", "StartSubmissionUpload:status=500*1"]
)
def test_what_did_not_arrive_is_tried_again(place: Path, fault: str) -> None:
    with serve(place, fault) as kaggle:
        assert send(place, kaggle).status == "complete"
        assert len(kaggle.state.submissions()) == 1


def test_what_never_arrives_is_an_error_and_a_later_run_mends_it(place: Path) -> None:
    with serve(place, "CreateSubmission:status=500*3") as kaggle:
        with pytest.raises(NetworkError):
            send(place, kaggle)
        assert [entry.status for entry in book(place)] == ["sending"]
        assert send(place, kaggle).status == "complete"


def test_a_submission_that_kaggle_takes_long_over_is_not_sent_twice(place: Path) -> None:
    """The client gives up while Kaggle is still at work on it: it arrives after the last look."""
    with serve(place, "CreateSubmission:hang=7*1") as kaggle:
        client = Kaggle(kaggle.environment, timeout=8, upload_timeout=4)
        csv = place / "submissions/tiny-run.csv"
        with pytest.raises(NetworkError, match="again in some minutes"):
            submit(csv, paths_in(place), client, print, clock=CLOCK)
        deadline = time.monotonic() + 30
        while not kaggle.state.submissions():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert send(place, kaggle).status == "complete"
        assert kaggle.count("CreateSubmission") == 1


def test_a_submission_that_a_killed_run_made_is_found(place: Path) -> None:
    with serve(place) as kaggle:
        sent = send(place, kaggle)
        # As if the run had been killed right after sending: the ledger knows no ref.
        lines = (place / "submissions/ledger.csv").read_text().splitlines(keepends=True)
        (place / "submissions/ledger.csv").write_text("".join(lines[:3]))
        assert send(place, kaggle).ref == sent.ref
        assert kaggle.count("CreateSubmission") == 1


def test_a_submission_by_hand_is_not_repeated(place: Path) -> None:
    with serve(place) as kaggle:
        submit_by_hand(place, kaggle)
        entry = send(place, kaggle)
        assert kaggle.count("CreateSubmission") == 1
    assert entry.run == "tiny-run" and entry.status == "complete"


def test_two_runs_at_once_make_one_submission(place: Path) -> None:
    with serve(place, "CreateSubmission:hang=1*1") as kaggle:
        outcomes: list[object] = []

        def attempt() -> None:
            try:
                outcomes.append(send(place, kaggle))
            except PipelineError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(kaggle.state.submissions()) == 1
    assert any("another run is at work" in str(outcome) for outcome in outcomes)


def test_the_daily_limit_is_its_own_exit_code(place: Path) -> None:
    with serve(place, settings=Settings(daily_limit=1, pending_seconds=0.0)) as kaggle:
        send(place, kaggle)
        with pytest.raises(SubmissionLimit, match="00:00 UTC"):
            send(place, kaggle, again=True)
        assert kaggle.count("CreateSubmission") == 1
        assert "00:00 UTC" in error_line(stage("submit", "--again", cwd=place, environ=kaggle.environment), 7)


def test_a_scoring_error_has_its_reason_and_stays_one(place: Path) -> None:
    (place / "labels.csv").write_text("ID,Labels\n1,1\n2,2\n")  # Kaggle expects other ids than ours
    with serve(place) as kaggle:
        for _ in range(2):
            with pytest.raises(ScoringError, match="could not score ref"):
                send(place, kaggle)
        assert kaggle.count("CreateSubmission") == 1
        assert "could not score" in error_line(stage("submit", cwd=place, environ=kaggle.environment), 8)


def test_a_score_that_does_not_come_in_time_is_waited_for_by_the_next_run(place: Path) -> None:
    with serve(place, settings=Settings(pending_seconds=3.0)) as kaggle:
        with pytest.raises(NetworkError, match=r"python -m pipeline\.check"):
            send(place, kaggle, dataclasses.replace(CLOCK, deadline=0.2))
        assert send(place, kaggle).status == "complete"
        assert kaggle.count("CreateSubmission") == 1


def test_an_invalid_csv_is_refused_before_anything_is_sent(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    csv.write_text(csv.read_text().replace("100,", "999,"))
    with serve(place) as kaggle:
        environ = kaggle.environment
        assert "was edited after" in error_line(stage("submit", "--competition", SLUG, cwd=place, environ=environ), 4)
        other = csv.rename(place / "other.csv")
        message = error_line(stage("submit", "--csv", other, "--competition", SLUG, cwd=place, environ=environ), 4)
        assert "the first is 100" in message
        assert kaggle.calls == []


def test_a_network_over_the_budget_is_refused_before_anything_is_sent(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    known = Sidecar.read(csv)
    assert known is not None
    dataclasses.replace(known, submittable=False).write(csv)
    with serve(place) as kaggle:
        assert "over the competition's 5,000,000" in error_line(
            stage("submit", cwd=place, environ=kaggle.environment), 2
        )
        assert kaggle.calls == []
    assert book(place) == []


def test_a_submission_whose_validation_accuracy_is_unknown_says_so(place: Path) -> None:
    csv = place / "submissions/tiny-run.csv"
    known = Sidecar.read(csv)
    assert known is not None
    dataclasses.replace(known, validation_accuracy=None).write(csv)
    with serve(place) as kaggle:
        entry = send(place, kaggle)
        (submission,) = kaggle.state.submissions()
        shown = stage("check", "--competition", SLUG, cwd=place, environ=kaggle.environment)
    assert entry.local_validation is None and entry.local_test == 90.0
    assert submission["description"].endswith(" val=unknown")
    assert shown.returncode == 0 and f"check: ref {entry.ref}, run tiny-run: local 90.00 %" in shown.stdout


def test_without_credentials_nothing_is_begun(place: Path) -> None:
    assert "no Kaggle credentials" in error_line(stage("submit", cwd=place), 5)
    assert book(place) == []
