"""Turn Ctrl-C and SIGTERM into a stop request that the training loop reads between chunks."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Request to stop a run, true once a signal has arrived.

    Attributes:
        signal: Number of the signal; 0 if none has arrived.
    """

    def __init__(self):
        self.signal = 0

    def __bool__(self) -> bool:
        """Return whether a signal has arrived."""
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """Exit status as in shells, 128 + signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


@contextmanager
def catch_stop(notice: Callable[[], None]) -> Iterator[StopRequest]:
    """Turn the first signal into a stop request; a second signal raises `KeyboardInterrupt`.

    Outside the main thread no signal is caught, because Python allows signal handlers only in the
    main thread.

    Args:
        notice: Called when the first signal arrives.

    Raises:
        KeyboardInterrupt: A second signal arrived.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        # The right-hand side is evaluated first, so `again` is False for the first signal.
        again, request.signal = bool(request), number
        if again:
            raise KeyboardInterrupt
        notice()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        # The previous handlers are restored even if the training loop raised an error.
        for number, handler in before.items():
            signal.signal(number, handler)
