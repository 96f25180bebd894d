"""The folder outside any repository where converted towers and frozen features are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder in the cache, made if missing: ``$VISLANG_CACHE``, or ``vislang`` in the user's cache folder."""
    root = os.environ.get("VISLANG_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vislang")
    folder = Path(root).expanduser().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
