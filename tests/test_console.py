"""In a log plain lines, few of them; on a terminal, even a narrow one, a bar that leaves nothing behind."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest

from pipeline.console import BYTES, Meter, duration, megabytes
from tests.support import ROOT


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(total: int | None, unit: str, pace: float, count: int) -> list[str]:
    """What a meter without a terminal says while `count` times 100 units come every `pace` seconds."""
    lines: list[str] = []
    clock = Clock()
    with Meter("predict: hidden images", total, unit, lines.append, clock=clock) as meter:
        for _ in range(count):
            clock.now += pace
            meter.add(100)
    return lines


def test_a_log_gets_a_line_a_minute_with_share_rate_and_time_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(50_000, "images", 1.0, 200) == [
        "predict: hidden images 2 %, 100 images/s, 0:08:10 to go",
        "predict: hidden images 14 %, 100 images/s, 0:07:10 to go",
        "predict: hidden images 26 %, 100 images/s, 0:06:10 to go",
        "predict: hidden images 38 %, 100 images/s, 0:05:10 to go",
    ]
    assert capsys.readouterr() == ("", "")


def test_short_work_says_nothing() -> None:
    assert said(1000, "images", 0.9, 10) == []


def test_what_has_no_known_end_has_no_time_to_go() -> None:
    assert said(None, "images", 5.0, 3) == ["predict: hidden images 200 images, 20 images/s"]


def test_bytes_are_megabytes_of_at_most_so_many() -> None:
    lines: list[str] = []
    clock = Clock()
    meter = Meter("download:", 200_000_000, BYTES, lines.append, clock=clock)
    for clock.now in (5.0, 15.0):  # resumed at 40 MB
        meter.update(40_000_000 + int(4_000_000 * (clock.now - 5)))
    assert lines == ["download: 80.0 MB of at most 200.0 MB, 4.0 MB/s, at most 0:00:30 to go"]
    assert megabytes(12_345_678) == "12.3 MB"


def test_the_rate_is_a_recent_one_and_begins_with_the_first_news() -> None:
    lines: list[str] = []
    clock = Clock()
    meter = Meter("work", 100_000, "images", lines.append, clock=clock)
    clock.now = 300.0  # a compilation
    meter.add(100)
    for pace in (10, 500):
        for _ in range(130):
            clock.now += 1
            meter.add(pace)
        assert lines[-1].split(", ")[1] == f"{pace} images/s"


def test_durations_are_rounded_to_seconds() -> None:
    assert duration(3_725.6) == "1:02:06"


# --- a terminal -------------------------------------------------------------------------------------------

WORK = """
import signal, time
from pipeline.cli import log
from pipeline.console import Meter
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with Meter("predict: hidden images", 1000, "images", log) as meter:
        for k in range(STEPS):
            time.sleep(0.12)
            meter.add(50)
            if k == 4:
                meter.line("halfway")
except KeyboardInterrupt:
    log("interrupted")
log("done")
"""


def on_terminal(columns: int, steps: int, act: Callable[[int], None] = lambda _pid: None) -> str:
    """All that WORK of so many steps writes to a terminal so wide; `act` is called with its pid when it is halfway."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    command = [sys.executable, "-c", WORK.replace("STEPS", str(steps))]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, cwd=ROOT) as child:
        os.close(follower)
        output, acted = b"", False
        while part := _read(leader):
            output += part
            if b"halfway" in output and not acted:
                acted = True
                act(child.pid)
    os.close(leader)
    return output.decode()


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 4096)
    except OSError:  # how Linux tells that nobody writes any more
        return b""


def screen(output: str) -> list[str]:
    """The lines that remain to be read: carriage returns overwrite, and there are no other control codes."""
    assert "\x1b" not in output
    lines = []
    for line in output.split("\n"):
        cells: dict[int, str] = {}
        for part in line.split("\r"):
            cells |= dict(enumerate(part))
        lines.append("".join(cells[k] for k in sorted(cells)).rstrip())
    return [line for line in lines if line]


@pytest.mark.parametrize("columns", [0, 20, 300])
def test_a_terminal_has_a_bar_and_is_clean_afterwards(columns: int) -> None:
    output = on_terminal(columns, steps=8)
    assert screen(output) == ["halfway", "done"]
    bars = re.findall(r"\r(predict: [^\r\n]*)", output)
    assert 5 <= len(bars) <= 20
    assert max(map(len, bars)) <= {0: 79, 20: 19, 300: 100}[columns]  # wider ones would wrap, and stay
    if columns != 20:
        assert re.search(r"\rpredict: hidden images 40 %, [34]\d\d images/s, 0:00:0\d to go \|", output), output


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    output = on_terminal(80, steps=1000, act=lambda pid: os.kill(pid, signal.SIGINT))
    assert screen(output) == ["halfway", "interrupted", "done"]
