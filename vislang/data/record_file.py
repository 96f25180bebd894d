"""Files of records: what every format has in common, and reading a whole file into memory."""

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
"""Media that were decoded and are not decoded again."""


class Raw(NamedTuple):
    """A record as its file holds it.

    Attributes:
        number: of its line or row, from 1.
        content: the record itself.
        offset, size: where :meth:`RecordFile.content` finds it again.
    """

    number: int
    content: Any
    offset: int
    size: int


class RecordFile(ABC):
    """A file of records in some format. It can be pickled.

    Args:
        origin: its path or address. Messages call it this, and media are relative to it.
        reader: what makes examples of its records, in a few words: an index is of a file and of this.
        path: where it lies on this machine, if that is not ``origin``.
        empty: what to say where no record is in it.

    Attributes:
        condition: raises a RecordError where an example is not of the kind that is wanted; None where all are.
    """

    def __init__(self, origin: str, reader: str, path: Path | None, empty: str):
        self.origin, self.reader, self.empty = origin, reader, empty
        self.path = path or Path(origin)
        self.folder = folder_of(origin)
        self.condition: Callable[[Example], None] | None = None

    @abstractmethod
    def count(self) -> int:
        """How many records there are, or a few more: it takes no more than a look at the file.

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def scan(self, extract: Path | None = None, progress: Progress | None = None) -> Iterator[Raw]:
        """The records in their order.

        Args:
            extract: a file to write what cannot be read in place later; None where nothing will be.
            progress: called with (records or bytes done, of how many).

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def content(self, offset: int, size: int, extract: Path) -> Any:
        """The record that :meth:`scan` found there.

        Raises:
            OSError: it cannot be read.
        """

    @abstractmethod
    def made(self, number: int, content: Any) -> Example | None:
        """A record as an Example, whatever kind is wanted.

        Raises:
            RecordError: it is a bad one.
        """

    def example(self, number: int, content: Any) -> Example | None:
        """A record as an Example; None where it holds nothing to learn from.

        Raises:
            RecordError: it is a bad one.
        """
        example = self.made(number, content)
        if example is not None and self.condition is not None:
            self.condition(example)
        return example

    def problem(self, number: int, content: Any, error: RecordError) -> Problem:
        """What is wrong with a record."""
        return Problem(self.origin, number, str(error), error.kind)


def read_all(
    file: RecordFile, problems: list[Problem], progress: Progress | None = None, max_pixels: int = MAX_PIXELS
) -> list[Example]:
    """All good records of a file, in memory; see :func:`checked`."""
    return list(checked(file, problems, progress, max_pixels))


def checked(
    file: RecordFile, problems: list[Problem], progress: Progress | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Example]:
    """Read and check the records of a file; each medium is decoded once, however many records name it.

    Args:
        file: the file.
        problems: bad records are added to it, and left out.
        progress: called with (records done, of how many).
        max_pixels: limit of an image.

    Raises:
        DataError: the file cannot be read, or holds no record at all.
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
                    f'its id "{example.id}" is that of line {first} too. Give each record its own "id".', "id"
                )
        except RecordError as error:
            problems.append(file.problem(number, content, error))
            continue
        good += 1
        yield example
    if not good and len(problems) == known:
        raise DataError(f"{file.origin}: {file.empty}")


class CheckedMedia:
    """Media that were decoded: the size of an image, or what is wrong with a medium."""

    def __init__(self, max_pixels: int = MAX_PIXELS):
        self._max_pixels = max_pixels
        self._sizes: dict[Medium, tuple[int, int]] = {}
        self._faults: dict[Medium, MediaError] = {}

    def check(self, example: Example) -> None:
        """See that an example can be used.

        Raises:
            RecordError: a medium cannot be decoded, or the box does not lie in the image.
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
    """Raise a RecordError unless a box lies in an image of this width and height."""
    width, height = size
    if not (0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height):
        edges = ", ".join(f"{edge:g}" for edge in (box.left, box.top, box.right, box.bottom))
        raise RecordError(
            f'"box" [{edges}] does not lie in an image of {width} x {height} pixels. Boxes are left, top, right, '
            "bottom."
        )
