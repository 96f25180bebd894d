"""A training step that never ends says where it stands, and ends the process."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from vislang.train.processes import Processes

STATUS = 70
"""Exit status of a process that was ended while it hung."""


class Watchdog:
    """Watches the steps of this process. Where one takes too long, its stack is printed, and the process ends.

    A process waits for ever where another one does not take part in what they do together. Each process of a run
    watches itself, so that all of them say where they stand.

    Args:
        minutes: that a step may take; 0 watches nothing.
        processes: of the run, for the message.
        grace: seconds between the message and the end, in which the other processes can print theirs.
    """

    def __init__(self, minutes: float, processes: Processes, grace: float = 10.0):
        self._seconds = 60 * minutes
        self._processes = processes
        self._grace = grace
        self._main = threading.get_ident()
        self._since: tuple[int, float] | None = None
        if minutes:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around a step."""
        self._since = number, time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._seconds / 4))
            since = self._since
            if since is None or time.monotonic() - since[1] < self._seconds:
                continue
            frame = sys._current_frames().get(self._main)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "(its main thread has ended)\n"
            processes = self._processes
            print(
                f"process {processes.rank} of {processes.count} has been in step {since[0]} for {self._seconds:.0f} s, "
                f"and is ended. It stands at:\n{stack}",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(self._grace)
            os._exit(STATUS)
