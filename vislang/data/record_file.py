"""Files of records: the interface of all formats, and reading a whole file into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vislang.boxes import Box
from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem, RecordError
from vislang.data.remote import folder_of
from vislang.document import MAX_PIXELS, Audio, Image, MediaError, Medium, Video
from vislang.example import Example

REMEMBERED = 1_000_000
"""How many decoded media are remembered, so that they are not decoded again."""


class Raw(NamedTuple):
    """A record before it is parsed.

    Attributes:
        number: its line or row, from 1.
        content: the record, in a form that depends on the format.
        offset, size: its position, by which :meth:`RecordFile.content` reads it again.
    """

    number: int
    content: Any
    offset: int
    size: int


class RecordFile(ABC):
    """A file of records. It can be pickled.

    Args:
        origin: the path or address of the file. Messages use it as the name, and media are relative to it.
        reader: the name of the function that makes the examples. There is one index for each file and reader.
        path: the local path, if it is not ``origin``.
        empty: the message if the file contains no records.

    Attributes:
        condition: raises a RecordError for examples of an unwanted kind; None if all kinds are accepted.
    """

    def __init__(self, origin: str, reader: str, path: Path | None, empty: str):
        self.origin, self.reader, self.empty = origin, reader, empty
        self.path = path or Path(origin)
        self.folder = folder_of(origin)
        self.condition: Callable[[Example], None] | None = None

    @abstractmethod
    def count(self) -> int:
        """An upper bound of the number of records, without parsing them.

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def scan(self, extract: Path | None = None, progress: Progress | None = None) -> Iterator[Raw]:
        """All records, in order.

        Args:
            extract: a file for data that :meth:`content` needs, if records cannot be read in place; None if
                :meth:`content` is not going to be called.
            progress: called with (records or bytes done, records or bytes in all).

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def content(self, offset: int, size: int, extract: Path) -> Any:
        """The content of the record at a position that :meth:`scan` gave.

        Raises:
            OSError: it cannot be read.
        """

    @abstractmethod
    def made(self, number: int, content: Any) -> Example | None:
        """The example of a record, before the condition is checked.

        Raises:
            RecordError: the record is bad.
        """

    def example(self, number: int, content: Any) -> Example | None:
        """The example of a record; None if the record is not used, such as a page without images.

        Raises:
            RecordError: the record is bad.
        """
        example = self.made(number, content)
        if example is not None and self.condition is not None:
            self.condition(example)
        return example

    def problem(self, number: int, content: Any, error: RecordError) -> Problem:
        """The problem of a record."""
        return Problem(self.origin, number, str(error), error.kind)


def read_all(
    file: RecordFile, problems: list[Problem], progress: Progress | None = None, max_pixels: int = MAX_PIXELS
) -> list[Example]:
    """All good records of a file, in memory; see :func:`checked`."""
    return list(checked(file, problems, progress, max_pixels))


def checked(
    file: RecordFile, problems: list[Problem], progress: Progress | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Example]:
    """Read and check the records of a file. A medium that several records name is decoded once.

    Args:
        file: the file.
        problems: bad records are skipped, and their problems are added to this list.
        progress: called with (records done, records in all).
        max_pixels: the largest number of pixels of an image.

    Raises:
        DataError: the file cannot be read, or contains no records.
    """
    media = CheckedMedia(max_pixels)
    numbers: dict[str, int] = {}
    known, good = len(problems), 0
    for number, content, _, _ in file.scan(progress=progress):
        try:
            example = file.example(number, content)
            if example is None:
                continue
            media.check(example)
            if (first := numbers.setdefault(example.id, number)) != number:
                raise RecordError(
                    f'its id "{example.id}" is also that of line {first}. Give each record its own "id".', "id"
                )
        except RecordError as error:
            problems.append(file.problem(number, content, error))
            continue
        good += 1
        yield example
    if not good and len(problems) == known:
        raise DataError(f"{file.origin}: {file.empty}")


class CheckedMedia:
    """Checks media by decoding them, and remembers the result."""

    def __init__(self, max_pixels: int = MAX_PIXELS):
        self._max_pixels = max_pixels
        self._sizes: dict[Medium, tuple[int, int]] = {}
        self._faults: dict[Medium, MediaError] = {}

    def check(self, example: Example) -> None:
        """Check an example.

        Raises:
            RecordError: a medium cannot be decoded, or the box is not inside the image.
        """
        if len(self._sizes) > REMEMBERED:
            self._sizes.clear()
        for medium in example.media:
            if medium not in self._sizes and medium not in self._faults:
                try:
                    self._sizes[medium] = self._decode(medium)
                except MediaError as error:
                    self._faults[medium] = error
            if (fault := self._faults.get(medium)) is not None:
                raise RecordError(str(fault), fault.kind)
        if isinstance(example.target, Box):
            must_be_inside(example.target, self._sizes[example.media[0]])

    def _decode(self, medium: Medium) -> tuple[int, int]:
        if isinstance(medium, Image):
            return medium.decode(self._max_pixels).size
        if isinstance(medium, Video):
            medium.decode(max_frames=1, max_pixels=self._max_pixels)
        elif isinstance(medium, Audio):
            medium.decode()
        return (0, 0)


def must_be_inside(box: Box, size: tuple[int, int]) -> None:
    """Raise a RecordError unless a box is inside an image of this width and height."""
    width, height = size
    if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
        edges = ", ".join(f"{edge:g}" for edge in (box.left, box.top, box.right, box.bottom))
        raise RecordError(
            f'"box" [{edges}] is not inside the image of {width} x {height} pixels. Boxes are left, top, right, bottom.'
        )
