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


def end_with_launcher() -> None:
    """From now on, end this process soon after its launcher has ended. Does nothing in a process that has none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    threading.Thread(target=_watch, args=(os.getppid(),), name="launcher-watch", daemon=True).start()


def _watch(launcher: int) -> None:
    # The system gives a process whose parent has ended to another one.
    while os.getppid() == launcher:
        time.sleep(SECONDS)
    print(f"process {os.environ.get('RANK', '?')}: its launcher was killed, and it ends, too.", file=sys.stderr)
    sys.stderr.flush()
    # The others of the run end alike; what they would do together, such as a checkpoint, could wait for ever.
    os._exit(STATUS)
