"""In a log plain lines, few of them; on a terminal, even a narrow one, a bar that leaves nothing behind."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

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
    with Meter("predict: test images", total, unit, lines.append) as meter:
        for _ in range(count):
            now[0] += pace
            meter.add(size)
    return lines


def test_a_log_gets_a_line_a_minute_with_share_rate_and_time_to_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(monkeypatch, 50_000, "images", 1.0, 200) == [
        "predict: test images 12%, 100.00 images/s, 07:20 left",
        "predict: test images 24%, 100.00 images/s, 06:20 left",
        "predict: test images 36%, 100.00 images/s, 05:20 left",
    ]
    assert capsys.readouterr() == ("", "")


def test_short_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, 1000, "images", 5.9, 10) == []


def test_what_has_no_known_end_has_no_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, None, "images", 25.0, 3) == ["predict: test images 300 images,  4.00 images/s"]


def test_bytes_are_megabytes_of_at_most_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, 360_000_000, BYTES, 61.0, 1, 61_000_000) == [
        "predict: test images 61.0MB of at most 360MB, 1.00MB/s, at most 04:59 left"
    ]
    assert (megabytes(12_345_678), duration(3_725.6)) == ("12.3 MB", "1h 2m")


# --- a terminal -------------------------------------------------------------------------------------------

WORK = """
import time
from pipeline.console import Meter, log, working
with working("loading PyTorch"):
    time.sleep(0.1)
try:
    with Meter("predict: test images", 1000, "images", log) as meter:
        for k in range(100):
            time.sleep(0.12)
            meter.add(50)
            if k == 4:
                log("halfway")
except KeyboardInterrupt:
    log("interrupted")
"""


def until_ctrl_c(columns: int) -> str:
    """All that WORK writes to a terminal so wide, until it is interrupted halfway."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    output = b""
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT
    ) as child:
        os.close(follower)
        with contextlib.suppress(OSError):  # how Linux tells that nobody writes any more
            while part := os.read(leader, 4096):
                if b"halfway" in part:
                    time.sleep(0.2)  # not while the bar is being drawn again
                    child.send_signal(signal.SIGINT)
                output += part
    os.close(leader)
    return output.decode()


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


@pytest.mark.parametrize(
    ("columns", "shown"), [(20, r"predict: test"), (100, r"test images 20%, [34]\d\d\.\d\d images/s")]
)
def test_a_terminal_has_a_bar_and_is_clean_afterwards(columns: int, shown: str) -> None:
    output = until_ctrl_c(columns)
    assert screen(output) == ["halfway", "interrupted"]
    assert "\rloading PyTorch ..." in output and re.search(shown, output)
    bars = re.findall(r"\r(predict: [^\r\n]*)", output)
    assert max(map(len, bars)) <= columns - (columns == 20)  # wider ones would wrap, and stay
