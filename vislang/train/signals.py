"""Ctrl-C and SIGTERM as a request that the loop heeds between two steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECOND_SIGNAL = 2.0
"""Seconds after which another Ctrl-C stops at once. A launcher may pass on the one that the terminal sent to all."""


class Stop:
    """Whether a signal has asked to stop, and since when."""

    def __init__(self) -> None:
        self.at: float | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.at is not None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a request that the loop heeds after the step; a second Ctrl-C stops at once."""
    stop = Stop()
    before = {}

    def ask(number, frame):
        now = time.monotonic()
        if stop.at is not None and number == signal.SIGINT and now - stop.at > SECOND_SIGNAL:
            raise KeyboardInterrupt
        stop.at = stop.at or now

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:
        # Only the main thread may set handlers; elsewhere the caller stops the run its own way.
        before.clear()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
