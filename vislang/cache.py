"""The cache folder, which holds converted towers, downloaded data and frozen features."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vislang.errors import UserError


def cache_path(*parts: str) -> Path:
    """A path in the cache; it need not exist. The cache is ``$VISLANG_CACHE``, or ``vislang`` in the user's cache
    folder."""
    root = os.environ.get("VISLANG_CACHE")
    if not root:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vislang")
    return Path(root).expanduser().joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """A folder in the cache; it is created if it does not exist.

    Raises:
        UserError: it cannot be created.
    """
    folder = cache_path(*parts)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a UserError while a folder of the cache is written.

    Raises:
        UserError: an OSError was raised inside.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"{folder}: the cache cannot be written ({error.strerror or error}). Free some space, or set VISLANG_CACHE "
            "to a folder that you may write to."
        ) from None
