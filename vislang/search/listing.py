"""The images below a folder, with size and time of modification, without opening them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from vislang.data.files import MEDIA
from vislang.document import Image
from vislang.errors import UserError

ENDINGS = tuple(ending for ending, kind in MEDIA.items() if kind is Image)


@dataclass(frozen=True)
class Skipped:
    """A file or folder that could not be read: its path relative to the indexed folder, and why."""

    name: str
    reason: str


def list_images(folder: Path) -> tuple[dict[str, tuple[int, int]], list[Skipped]]:
    """The images of a folder and of those inside it; links to folders are not followed.

    Returns:
        Size and time of modification of each image by its path relative to ``folder``, and what could not be read.
    """
    found: dict[str, tuple[int, int]] = {}
    skipped: list[Skipped] = []

    def relative(path: str) -> str:
        return Path(path).relative_to(folder).as_posix()

    def unlisted(error: OSError) -> None:
        skipped.append(Skipped(relative(str(error.filename)), f"the folder cannot be listed ({error.strerror})"))

    for parent, _, files in os.walk(folder, onerror=unlisted):
        for file in files:
            if not file.lower().endswith(ENDINGS):
                continue
            path = os.path.join(parent, file)
            try:
                about = os.stat(path)
            except OSError as error:
                skipped.append(Skipped(relative(path), f"cannot be read ({error.strerror})"))
                continue
            if stat.S_ISREG(about.st_mode):
                found[relative(path)] = about.st_size, about.st_mtime_ns
            else:
                skipped.append(Skipped(relative(path), "not a regular file"))
    return found, skipped


def must_have_images(folder: Path) -> None:
    """Raise an error if a folder contains no images, before a model is opened; the first image ends the look.

    Raises:
        UserError: there are none.
    """
    for _, _, files in os.walk(folder):
        if any(file.lower().endswith(ENDINGS) for file in files):
            return
    raise UserError(f"{folder}: contains no images ({', '.join(ENDINGS)}).")
