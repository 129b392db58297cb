import signal

import pytest

from pipeline.training.loop import Stopped, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_aborts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        stop.check()
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(Stopped):
            stop.check()
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
