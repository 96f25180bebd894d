"""Checks before a command starts: can its results be written, and are its optional packages installed?"""

from __future__ import annotations

import os
from pathlib import Path

from vislang.errors import UserError


def must_hold_file(path: Path, option: str = "") -> None:
    """Raise an error if a file cannot be written.

    Args:
        path: the file; if it exists, it will be replaced.
        option: the option that set the path, for the message.

    Raises:
        UserError: the path is a folder, or its parent folder does not exist or is not writable.
    """
    named = f"{option} {path}".strip()
    if path.is_dir():
        raise UserError(f"{named}: is a folder. Give the path of a file.")
    if not path.parent.is_dir():
        raise UserError(f"{named}: there is no folder {path.parent}. Create it first.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{named}: {path.parent} is not writable. Choose another folder.")


def must_hold_folder(path: Path) -> None:
    """Raise an error if a folder cannot be created, or cannot be written to.

    Raises:
        UserError: the path or a parent of it is a file, or the nearest existing folder is not writable.
    """
    nearest = next(parent for parent in (path, *path.parents, Path()) if parent.exists())
    if not nearest.is_dir():
        raise UserError(f"{path}: {nearest} is a file. Give the path of a folder.")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{path}: {nearest} is not writable. Choose another folder.")
