"""Pairs in tar files, as WebDataset keeps them: members of one name are one record, ``0001.jpg`` and ``0001.txt``."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem
from vislang.document import Document, Image, MediaError, Slice, Video
from vislang.example import Example, Text
from vislang.files import must_be_file

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
VIDEOS = ("mp4", "webm", "mkv", "avi", "mov")


def read_tar(path: Path, problems: list[Problem], progress: Progress | None = None) -> list[Example]:
    """The pairs of an uncompressed tar file: an image or a video, and a ``.txt``, or a ``.json`` with "caption".

    Media are read from the tar when they are needed; nothing is unpacked.

    Args:
        path: of the tar.
        problems: records that cannot be used are added to it, and left out.
        progress: called with (records checked, of how many).

    Raises:
        DataError: it is no tar, or compressed, or has no pair in it.
    """
    must_be_file(path, "an uncompressed tar file", DataError)
    records: dict[str, dict[str, tarfile.TarInfo]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    key, _, ending = name.partition(".")
                    records.setdefault(f"{folder}/{key}" if folder else key, {})[ending.lower()] = member
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path}: not an uncompressed tar file ({error}). Unpack it, or copy it again.") from None
    found, known = [], len(problems)
    for number, (key, members) in enumerate(records.items(), start=1):
        try:
            found.append(_pair(path, key, members))
        except (MediaError, ValueError, RecursionError) as error:
            problems.append(Problem(f"{path}: {key}", number, str(error)))
        if progress is not None:
            progress(number, len(records))
    if not found and len(problems) == known:
        raise DataError(f"{path}: contains no records. A record is an image and a .txt of the same name.")
    return found


def _pair(path: Path, key: str, members: dict[str, tarfile.TarInfo]) -> Example:
    def part(member: tarfile.TarInfo) -> Slice:
        return Slice(path, member.offset_data, member.size, member.name)

    media = [ending for ending in members if ending.rpartition(".")[2] in (*IMAGES, *VIDEOS)]
    # 1.jpg comes before 1.mask.png, which belongs to it.
    media = [ending for ending in media if "." not in ending] or media
    if len(media) != 1:
        found = ", ".join(sorted(media or members))
        raise ValueError(f"{'several images or videos' if media else 'no image or video'} in it: {found}.")
    medium: Image | Video
    if media[0].rpartition(".")[2] in IMAGES:
        medium = Image(part(members[media[0]]))
        medium.decode()
    else:
        medium = Video(part(members[media[0]]))
        medium.decode(max_frames=1)
    caption: Any
    if "txt" in members:
        caption = Image(part(members["txt"])).read().decode("utf-8")
    elif "json" in members:
        described = json.loads(Image(part(members["json"])).read())
        caption = described.get("caption") if isinstance(described, dict) else None
    else:
        raise ValueError("has no .txt or .json of the same name.")
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError("its caption is empty.")
    name = f"{path}: {key}"
    return Example(name, Document([medium], name=name), Text((" ".join(caption.split()),)))
