"""What a command needs before it starts: somewhere to write its results, and optional packages."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from vislang.errors import UserError


def must_hold_file(path: Path, option: str = "") -> None:
    """Raise an error where no file can be written.

    Args:
        path: of the file; one that exists will be replaced.
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
    """Raise an error where no folder can be made, or filled if it exists.

    Raises:
        UserError: it is a file, or stands below one, or below a folder that may not be written to.
    """
    nearest = next(parent for parent in (path, *path.parents, Path()) if parent.exists())
    if not nearest.is_dir():
        raise UserError(f"{path}: {nearest} is a file. Name a folder.")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{path}: {nearest} may not be written to. Name a folder elsewhere.")


def needs(package: str, extra: str, purpose: str) -> None:
    """Raise an error where an optional package is not installed.

    Args:
        package: its import name.
        extra: the extra of vislang that installs it.
        purpose: what it is needed for, for the message.

    Raises:
        UserError: it is missing; the message names the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{purpose} needs {package}. Run: pip install 'vislang[{extra}]'")
