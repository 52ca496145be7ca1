"""Ctrl-C and SIGTERM as a request that the loop reads between chunks."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self):
        self.signal = 0

    def __bool__(self) -> bool:
        """A signal has come."""
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


@contextmanager
def catch_stop(notice: Callable[[], None]) -> Iterator[StopRequest]:
    """Turn the first signal into a request and a notice; a second one raises at once.

    Outside the main thread, where Python allows no handlers, nothing is caught.

    Raises:
        KeyboardInterrupt: on the second signal.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
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
        for number, handler in before.items():
            signal.signal(number, handler)
