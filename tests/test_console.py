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


def said(
    patch: pytest.MonkeyPatch, total: int | None, unit: str, pace: float, count: int, size: int = 100
) -> list[str]:
    """What a meter without a terminal says while `count` times `size` units come every `pace` seconds."""
    lines: list[str] = []
    now = [0.0]
    patch.setattr("tqdm.std.time", lambda: now[0])
    with Meter("predict: hidden images", total, unit, lines.append) as meter:
        for _ in range(count):
            now[0] += pace
            meter.add(size)
    return lines


def test_a_log_gets_a_line_a_minute_with_share_rate_and_time_to_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(monkeypatch, 50_000, "images", 1.0, 200) == [
        "predict: hidden images 12 %, 100.00 images/s, 07:20 to go",
        "predict: hidden images 24 %, 100.00 images/s, 06:20 to go",
        "predict: hidden images 36 %, 100.00 images/s, 05:20 to go",
    ]
    assert capsys.readouterr() == ("", "")


def test_short_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, 1000, "images", 5.9, 10) == []


def test_what_has_no_known_end_has_no_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, None, "images", 25.0, 3) == ["predict: hidden images 300 images,  4.00 images/s"]


def test_bytes_are_megabytes_of_at_most_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, 360_000_000, BYTES, 61.0, 1, 61_000_000) == [
        "predict: hidden images 61.0MB of at most 360MB, 1.00MB/s, at most 04:59 to go"
    ]
    assert (megabytes(12_345_678), duration(3_725.6)) == ("12.3 MB", "1:02:06")


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
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
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


@pytest.mark.parametrize("columns", [20, 100])
def test_a_terminal_has_a_bar_and_is_clean_afterwards(columns: int) -> None:
    output = on_terminal(columns, steps=8)
    assert screen(output) == ["halfway", "done"]
    bars = re.findall(r"\r(predict: [^\r\n]*)", output)
    assert 5 <= len(bars) <= 20
    assert max(map(len, bars)) <= columns - (columns == 20)  # wider ones would wrap, and stay
    if columns != 20:
        assert re.search(r"\rpredict: hidden images 40 %, [34]\d\d\.\d\d images/s, 00:0\d to go \|", output), output


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    output = on_terminal(80, steps=1000, act=lambda pid: os.kill(pid, signal.SIGINT))
    assert screen(output) == ["halfway", "interrupted", "done"]
