"""Reading parts of files. Opening a file takes longer than reading a record, so the latest files stay open."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path

OPEN = 256
"""How many files stay open; a process may usually have about a thousand."""


def read_range(path: Path, offset: int, size: int) -> bytes:
    """A part of a file; it is shorter at the end of the file. Forked processes may share open files.

    Raises:
        OSError: the file cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(_opened(path).fileno(), size, offset)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)


def forget_open_files() -> None:
    """Open files again when they are next read, in case they were replaced."""
    _opened.cache_clear()


@lru_cache(maxsize=OPEN)
def _opened(path: Path) -> io.FileIO:
    # The file is closed when the cache drops it.
    return path.open("rb", buffering=0)
