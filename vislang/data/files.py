"""Media and text files as Examples without a target, by their endings: one file, or all of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem
from vislang.data.prose import PROSE, read_prose
from vislang.data.remote import RemoteFile, ending_of
from vislang.document import Audio, Document, Image, MediaError, Video
from vislang.example import Example

MEDIA: dict[str, type[Image] | type[Video] | type[Audio]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"), Image),
    **dict.fromkeys((".mp4", ".m4v", ".webm", ".mkv", ".avi", ".mov", ".ogv", ".mpg", ".mpeg"), Video),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3"), Audio),
}
"""Kinds of media by the ending of a file."""


def read_folder(folder: Path, problems: list[Problem], progress: Progress | None = None) -> list[Example]:
    """The media and the text files of a folder and of those inside it, in the order of their paths.

    Args:
        folder: which.
        problems: media that cannot be used are added to it, and left out.
        progress: called with (files done, of how many).

    Raises:
        DataError: there is none in it, or a text file cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (*MEDIA, *PROSE))
    if not files:
        raise DataError(f"{folder}: contains no media or text files. Supported are {', '.join([*MEDIA, *PROSE])}.")
    return read_files(files, problems, progress)


def read_files(
    files: Sequence[Path | RemoteFile], problems: list[Problem], progress: Progress | None = None
) -> list[Example]:
    """Media and text files; each medium is decoded once to check it.

    Args:
        files: with endings of :data:`MEDIA` or, of paths, :data:`~vislang.data.prose.PROSE`.
        problems: media that cannot be used are added to it, and left out.
        progress: called with (files done, of how many).

    Raises:
        DataError: a text file cannot be read.
    """
    found: list[Example] = []
    for number, file in enumerate(files, start=1):
        name = str(file) if isinstance(file, Path) else file.name
        if isinstance(file, Path) and file.suffix.lower() in PROSE:
            found += read_prose(file)
        else:
            medium = MEDIA[ending_of(name)](file)
            try:
                _ = medium.decode(max_frames=1) if isinstance(medium, Video) else medium.decode()
                found.append(Example(name, Document([medium], name=name)))
            except MediaError as error:
                problems.append(Problem(name, 0, str(error), error.kind))
        if progress is not None:
            progress(number, len(files))
    return found
