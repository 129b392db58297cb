"""Ctrl-C and SIGTERM while training: finish the step, save, then stop.  A second one stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """The user asked to stop, and the step under way is finished."""


class StopRequest:
    """Whether the user has asked to stop."""

    requested = False

    def check(self, anywhere: Callable[[bool], bool] = bool) -> None:
        """Between two steps, where nothing is half done.

        Args:
            anywhere: tells from this process's request whether any process that trains along has one.

        Raises:
            Stopped: the user has asked for it.
        """
        if anywhere(self.requested):
            raise Stopped

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signals' handler."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block, SIGINT and SIGTERM only set the request.

    Python takes signals in its main thread only: elsewhere nothing is installed, and nothing is requested.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
