"""Pairs in tar files, as WebDataset keeps them: members of one name are one record, ``0001.jpg`` and ``0001.txt``."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vislang.capabilities import Progress
from vislang.data.files import MEDIA
from vislang.data.problems import DataError, Problem, RecordError, must_be_file
from vislang.data.ranges import read_range
from vislang.data.record_file import Raw, RecordFile, read_all
from vislang.document import Document, Image, Slice, Video
from vislang.example import Example, Text


class Member(NamedTuple):
    """A file in a tar: its name, and the position and size of its content."""

    name: str
    offset: int
    size: int


class TarRecord(NamedTuple):
    """A record: the common part of the names of its members, and the members by extension."""

    key: str
    members: dict[str, Member]


class TarOfPairs(RecordFile):
    """The pairs of an uncompressed tar file: an image or a video, and a ``.txt``, or a ``.json`` with "caption".

    Media are read from the tar when they are needed; nothing is unpacked.

    Args:
        origin, path: see :class:`RecordFile`.
    """

    def __init__(self, origin: str, path: Path | None = None):
        super().__init__(
            origin, "pairs in a tar", path, "contains no records. A record is an image and a .txt of the same name."
        )

    def count(self) -> int:
        """See :class:`RecordFile`; this is the number of members."""
        return sum(1 for _ in self._members())

    def scan(self, extract: Path | None = None, progress: Progress | None = None) -> Iterator[Raw]:
        """See :class:`RecordFile`.

        With ``extract``, the positions of the members of each record are written there. Only adjacent members then
        form a record, as in WebDataset, because the members of a long tar are not kept in memory.
        """
        if extract is None:
            records: dict[str, TarRecord] = {}
            for record in _neighbours(self._members()):
                records.setdefault(record.key, TarRecord(record.key, {})).members.update(record.members)
            for number, record in enumerate(records.values(), start=1):
                yield Raw(number, record, 0, 0)
                if progress is not None:
                    progress(number, len(records))
            return
        size = self.path.stat().st_size
        with extract.open("wb") as file:
            for number, record in enumerate(_neighbours(self._members()), start=1):
                line = json.dumps(record).encode()
                yield Raw(number, record, file.tell(), file.write(line))
                if progress is not None:
                    progress(max(member.offset for member in record.members.values()), size)

    def content(self, offset: int, size: int, extract: Path) -> TarRecord:
        """See :class:`RecordFile`."""
        key, members = json.loads(read_range(extract, offset, size))
        return TarRecord(key, {ending: Member(*member) for ending, member in members.items()})

    def made(self, number: int, content: TarRecord) -> Example:
        """See :class:`RecordFile`."""
        members = content.members
        kinds = {ending: MEDIA.get(f".{ending.rpartition('.')[2]}") for ending in members}
        media = [ending for ending, kind in kinds.items() if kind in (Image, Video)]
        # 1.jpg comes before 1.mask.png, which belongs to it.
        media = [ending for ending in media if "." not in ending] or media
        if len(media) != 1:
            found = ", ".join(sorted(media or members))
            raise RecordError(f"{'several images or videos' if media else 'no image or video'} in it: {found}.")
        kind = Video if kinds[media[0]] is Video else Image
        name = f"{self.origin}: {content.key}"
        prompt = Document([kind(self._slice(members[media[0]]))], name=name)
        return Example(name, prompt, Text((" ".join(self._caption(members).split()),)))

    def problem(self, number: int, content: TarRecord, error: RecordError) -> Problem:
        """See :class:`RecordFile`; the record is named by its key."""
        return Problem(f"{self.origin}: {content.key}", number, str(error), error.kind)

    def _caption(self, members: dict[str, Member]) -> str:
        caption: Any
        try:
            if "txt" in members:
                caption = self._slice(members["txt"]).read().decode("utf-8")
            elif "json" in members:
                described = json.loads(self._slice(members["json"]).read())
                caption = described.get("caption") if isinstance(described, dict) else None
            else:
                raise RecordError("has no .txt or .json of the same name.")
        except RecordError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise RecordError(f"its caption cannot be read ({error}).", "format") from None
        if not isinstance(caption, str) or not caption.strip():
            raise RecordError("its caption is empty.")
        return caption

    def _slice(self, member: Member) -> Slice:
        return Slice(self.path, member.offset, member.size, member.name, self.origin)

    def _members(self) -> Iterator[Member]:
        must_be_file(self.path, "an uncompressed tar file", self.origin)
        try:
            with tarfile.open(self.path, "r:") as tar:
                while (member := tar.next()) is not None:
                    if member.isfile():
                        yield Member(member.name, member.offset_data, member.size)
                    # tarfile would keep all members in memory.
                    tar.members.clear()  # type: ignore[attr-defined]
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"{self.origin}: not an uncompressed tar file ({error}). Unpack it, or copy it again."
            ) from None


def read_tar(path: Path, problems: list[Problem], progress: Progress | None = None) -> list[Example]:
    """The pairs of a tar file; see :class:`TarOfPairs`.

    Args:
        path: the tar.
        problems: bad records are skipped, and their problems are added to this list.
        progress: called with (records checked, records in all).

    Raises:
        DataError: the file is not a tar, is compressed, or contains no pairs.
    """
    return read_all(TarOfPairs(str(path)), problems, progress)


def _neighbours(members: Iterable[Member]) -> Iterator[TarRecord]:
    """Records of adjacent members whose names are the same up to the first dot."""
    record: TarRecord | None = None
    for member in members:
        folder, _, name = member.name.rpartition("/")
        key, _, ending = name.partition(".")
        key = f"{folder}/{key}" if folder else key
        if record is None or record.key != key:
            if record is not None:
                yield record
            record = TarRecord(key, {})
        record.members[ending.lower()] = member
    if record is not None:
        yield record
