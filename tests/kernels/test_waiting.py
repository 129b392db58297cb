"""Waiting, with Kaggle's answers as a script: the genuine client's are in tests/test_kernel.py."""

import itertools
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from pipeline.errors import NetworkError, PipelineError
from pipeline.kaggle_api import kernels
from pipeline.kaggle_api.client import Kaggle
from pipeline.kaggle_api.kernels import Session
from pipeline.kernels.order import Note, Order
from pipeline.kernels.waiting import Clock, wait_for
from pipeline.recipes import PRESETS

LATER = "python -m pipeline.kernel fetch --run my-run"
NOTE = Note(Order("tiny", "my-run", PRESETS["rehearsal"]), "user", 2)


class Ticking:
    """A clock that goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self, deadline: float) -> Clock:
        return Clock(deadline, poll=100.0, sleep=self.sleep, monotonic=lambda: self.now)


def script(monkeypatch: pytest.MonkeyPatch, *statuses: str, message: str = "") -> None:
    """Kaggle answers so, and goes on with the last."""
    answers: Iterator[str] = itertools.chain(statuses, itertools.repeat(statuses[-1]))
    monkeypatch.setattr(kernels, "session", lambda _kaggle, _ref, _version: Session(next(answers), message))


def test_each_new_status_is_told_and_after_ten_minutes_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "QUEUED", "QUEUED", *["RUNNING"] * 8, "COMPLETE")
    told: list[str] = []
    wait_for(NOTE, Kaggle({}), told.append, Ticking().clock(43_200), LATER)
    assert told == [
        "kernel: user/my-run is queued, after 0:00:00",
        "kernel: user/my-run is running, after 0:03:20",
        "kernel: user/my-run is running, after 0:13:20",
        "kernel: user/my-run is complete, after 0:16:40",
    ]


@pytest.mark.parametrize(("silent", "deadline", "ends"), [(5, 43_200, True), (8, 43_200, False), (1, 0, False)])
def test_a_bad_connection_is_outlasted_for_ten_minutes(
    monkeypatch: pytest.MonkeyPatch, silent: int, deadline: float, ends: bool
) -> None:
    answers = iter([NetworkError("no answer")] * silent + [Session("RUNNING", ""), Session("COMPLETE", "")])

    def session(*_: object) -> Session:
        answer = next(answers)
        if isinstance(answer, NetworkError):
            raise answer
        return answer

    monkeypatch.setattr(kernels, "session", session)
    told: list[str] = []
    with nullcontext() if ends else pytest.raises(NetworkError, match="no answer"):
        wait_for(NOTE, Kaggle({}), told.append, Ticking().clock(deadline), LATER)
    assert ("kernel: no answer; looking again in 100 s" in told) == (deadline > 0)
    assert (told[-1:] == ["kernel: user/my-run is complete, after 0:10:00"]) == ends


@pytest.mark.parametrize(("deadline", "looks"), [(0, 1), (250, 4)])
def test_what_takes_too_long_ends_with_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, deadline: float, looks: int
) -> None:
    script(monkeypatch, "RUNNING")
    time = Ticking()
    with pytest.raises(NetworkError, match=f"within {deadline:.0f} s: `{LATER}` goes on waiting"):
        wait_for(NOTE, Kaggle({}), lambda _: None, time.clock(deadline), LATER)
    assert time.now == 100 * (looks - 1)


@pytest.mark.parametrize("status", ["ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED", "SOMETHING_NEW"])
def test_what_will_not_complete_is_told_with_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    script(monkeypatch, "RUNNING", status, message="it\nbroke")
    monkeypatch.setattr(kernels, "log_lines", lambda *_: [f"line {k}" for k in range(100)])
    told: list[str] = []
    with pytest.raises(PipelineError) as caught:
        wait_for(NOTE, Kaggle({}), told.append, Ticking().clock(43_200), LATER)
    words = status.lower().replace("_", " ")
    assert str(caught.value).startswith(
        f"the kernel is {words} (it\\nbroke), see https://www.kaggle.com/code/user/my-run"
    )
    assert (caught.value.exit_code, told[-1], len(told)) == (1, "| line 99", 17)


def test_a_log_that_does_not_come_does_not_hide_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_log(*_: object) -> list[str]:
        raise NetworkError("down")

    script(monkeypatch, "ERROR")
    monkeypatch.setattr(kernels, "log_lines", no_log)
    told: list[str] = []
    with pytest.raises(PipelineError, match="the kernel is error, see"):
        wait_for(NOTE, Kaggle({}), told.append, Ticking().clock(43_200), LATER)
    assert told[-1] == "| no log: down"
