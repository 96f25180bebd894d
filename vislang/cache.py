"""The folder outside any repository where converted towers, fetched data and frozen features are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vislang.errors import UserError


def cache_path(*parts: str) -> Path:
    """A path in the cache, which may not exist: in ``$VISLANG_CACHE``, or ``vislang`` in the user's cache folder."""
    root = os.environ.get("VISLANG_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vislang")
    return Path(root).expanduser().joinpath(*parts)


def cache_folder(*parts: str) -> Path:
    """A folder in the cache, made if missing.

    Raises:
        UserError: it cannot be made.
    """
    folder = cache_path(*parts)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what keeps a folder of the cache from being written, a full disk say, into an error for the user.

    Raises:
        UserError: an OSError came up inside.
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
