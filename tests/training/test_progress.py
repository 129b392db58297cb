import pytest

from pipeline.store.runs import EpochRow
from pipeline.training.loop import Progress

ROW = EpochRow(3, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 65.4)
SHOWN = "epoch  3/12  rate 1.00e-03  train 2.000 20.00 %  validation 1.900 30.00 %  100 images/s  0:01:05"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def reported(pace: float, validation: float = 0.0, last: bool = False) -> list[str]:
    """What is said in the third epoch of twelve, of 100 steps of `pace` seconds for 6400 images, and at its end."""
    lines: list[str] = []
    clock = Clock()
    progress = Progress(lines.append, epochs=12, steps=100, images=6400, done=200, clock=clock)
    for step in range(201, 301):
        clock.now += pace
        progress.steps(step, loss=2.0)
    clock.now += validation
    progress.epoch(ROW, last)
    progress.close()
    return lines


def test_a_short_epoch_is_one_line_with_the_time_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(0.05) == [SHOWN + ", 0:00:45 to go"]  # 9 epochs of 5 seconds
    assert capsys.readouterr().err == ""


def test_a_long_epoch_says_once_a_minute_how_it_stands() -> None:
    *within, end = reported(3.0)
    assert [line.split(", ")[0] for line in within] == [f"train: {n} %" for n in (17, 18, 20, 22, 23)]
    assert within[0] == "train: 17 %, epoch 3/12, loss 2.000, 21 images/s, 0:49:48 to go"
    assert end == SHOWN + ", 0:45:00 to go"


def test_validations_count_in_the_time_to_go() -> None:
    (end,) = reported(0.05, validation=5.0)
    assert end == SHOWN + ", 0:01:30 to go"  # 9 epochs of 10 seconds


def test_the_last_epoch_has_nothing_to_go() -> None:
    assert reported(0.05, last=True) == [SHOWN]


def test_without_a_step_there_is_no_estimate() -> None:
    """As when only the validation was left to do."""
    lines: list[str] = []
    Progress(lines.append, epochs=12, steps=100, images=6400, done=300, clock=Clock()).epoch(ROW, last=False)
    assert lines == [SHOWN]
