"""Parts of files. Opening a file takes longer than reading a record, so files stay open for a while."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path

OPEN = 256
"""Files that stay open; systems allow a process about a thousand."""


def read_range(path: Path, offset: int, size: int) -> bytes:
    """A part of a file; shorter where the file ends. Forked processes may share what is open.

    Raises:
        OSError: the file cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(_opened(path).fileno(), size, offset)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)


def forget_open_files() -> None:
    """From now on read files as they are now, even where they were replaced since they were opened."""
    _opened.cache_clear()


@lru_cache(maxsize=OPEN)
def _opened(path: Path) -> io.FileIO:
    # Closed when it is dropped from the cache and nobody reads from it any more.
    return path.open("rb", buffering=0)
