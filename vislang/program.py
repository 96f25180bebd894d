"""How a program ends: its exit status, and one sentence in place of a traceback where the user can help."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from vislang.errors import UserError

_ELSEWHERE = "Choose a folder that you may write to (VISLANG_CACHE sets the cache folder)."
_SPACE = "Free some space, or choose a folder on another disk."
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
"""What a user can do about errors of the operating system."""


def run_program(run: Callable[[], int | None]) -> int:
    """Run a program; returns its exit status.

    0 success, 1 a check failed, 2 a user's mistake, 130 interrupted, 141 nobody reads the output any more.

    Args:
        run: returns the status, or None for success.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # It was closed before we started.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
    try:
        status = run()
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Such as by "| head". The status is that of a program that the system stops for this.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"vislang: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"vislang: {where}{error.strerror}. {_REMEDIES[error.errno]}", file=sys.stderr)
        return 2
