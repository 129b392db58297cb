import sys

import pytest

from pipeline.store.epochs import EpochRow
from pipeline.training.progress import Progress, duration

ROW = EpochRow(3, 1e-3, 2.0, 20.0, 1.9, 30.0, 100.0, 65.4)


def test_without_a_terminal_there_are_plain_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    progress = Progress(lines.append, epochs=12, steps=100, done=200)
    for step in range(201, 301):
        progress.steps(step, loss=2.0, rate=1e-3)
    progress.epoch(ROW)
    progress.close()
    assert lines[0].startswith("about 0:00:0")
    assert lines[1:] == [
        "epoch  3/12  rate 1.00e-03  train 2.000 20.00 %  validation 1.900 30.00 %  100 images/s  0:01:05"
    ]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_loss_and_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(lambda _: None, epochs=2, steps=100, done=50)
    progress.steps(100, loss=2.0, rate=1e-3)
    progress.close()
    bar = capsys.readouterr().err
    assert "100/200" in bar
    assert "loss=2.000, rate=1.00e-03" in bar


def test_durations_are_rounded_to_seconds() -> None:
    assert duration(3_725.6) == "1:02:06"
