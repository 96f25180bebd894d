"""Places that results are to be written to, looked at before the work that they are to hold is done."""

from __future__ import annotations

import os
from pathlib import Path

from vislang.errors import UserError


def must_hold_file(path: Path, option: str = "") -> None:
    """Refuse a place where no file can be written.

    Args:
        path: of the file; one that is there already will be replaced.
        option: the option that named it, for the message.

    Raises:
        UserError: it is a folder, or its folder is missing or may not be written to.
    """
    named = f"{option} {path}".strip()
    if path.is_dir():
        raise UserError(f"{named}: is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise UserError(f"{named}: there is no folder {path.parent}. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{named}: {path.parent} may not be written to. Name a file elsewhere.")


def must_hold_folder(path: Path) -> None:
    """Refuse a place where no folder can be made, or filled if it is there.

    Raises:
        UserError: it is a file, or stands below one, or below a folder that may not be written to.
    """
    nearest = next(place for place in (path, *path.parents, Path()) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{path}: {nearest} is a file. Name a folder.")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{path}: {nearest} may not be written to. Name a folder elsewhere.")
