"""A process that a launcher started ends when the launcher has gone.

The launcher (``vislang train --devices``, torchrun) starts each process in a session of its own. Where the launcher is
killed, its processes would train on unseen, and the folder of the run would stay locked.
"""

from __future__ import annotations

import os
import sys
import threading
import time

STATUS = 71
"""Exit status of a process whose launcher has gone."""

SECONDS = 0.5
"""Seconds between two looks."""


_launchers: list[int] = []


def end_with_launcher() -> None:
    """From now on, end this process soon after its launcher has ended. Does nothing in a process that has none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    _launchers[:] = [os.getppid()]
    threading.Thread(target=_watch, name="launcher-watch", daemon=True).start()


def end_if_launcher_has_ended() -> None:
    """End this process at once if its launcher has ended.

    For a process that fails: its fellows may have ended already, and the interpreter, which stops the watching thread
    before it joins all others, could then wait for one of them for ever.
    """
    # The system gives a process whose parent has ended to another one.
    if not _launchers or os.getppid() == _launchers[0]:
        return
    print(f"process {os.environ.get('RANK', '?')}: its launcher was killed, and it ends, too.", file=sys.stderr)
    sys.stderr.flush()
    # The others of the run end alike; what they would do together, such as a checkpoint, could wait for ever.
    os._exit(STATUS)


def _watch() -> None:
    while True:
        end_if_launcher_has_ended()
        time.sleep(SECONDS)
