"""JSON Lines: a file with one JSON object a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem, RecordError, must_be_file
from vislang.data.ranges import read_range
from vislang.data.record import FORMS, example_of
from vislang.data.record_file import Raw, RecordFile, read_all
from vislang.data.remote import Folder
from vislang.document import MAX_PIXELS
from vislang.example import Example

CHUNK = 1 << 20
"""The number of bytes read at a time to count lines."""

MakeExample = Callable[[dict[str, Any], str, int, Folder], Example | None]
"""Makes an example from a record, the origin of its file, its number and the folder of its file. Returns None if the
record is not used, and raises a RecordError if it is bad."""


class JsonLines(RecordFile):
    """A JSON Lines file.

    Args:
        origin, reader, path, empty: see :class:`RecordFile`.
        make: makes the example of a record.
        forms: the forms of a record, for messages.
        wanted: the expected kind of file, for messages.
    """

    def __init__(
        self,
        origin: str,
        reader: str,
        make: MakeExample,
        path: Path | None = None,
        forms: str = FORMS,
        wanted: str = "a JSON Lines file",
        empty: str = f"contains no records. Each line is one of {FORMS}.",
    ):
        super().__init__(origin, reader, path, empty)
        self.make, self.forms, self.wanted = make, forms, wanted

    def count(self) -> int:
        """See :class:`RecordFile`; blank lines count."""
        lines, last = 0, b"\n"
        with self._opened() as file:
            while chunk := file.read(CHUNK):
                lines += chunk.count(b"\n")
                last = chunk[-1:]
        return lines + (last != b"\n")

    def scan(self, extract: Path | None = None, progress: Progress | None = None) -> Iterator[Raw]:
        """See :class:`RecordFile`; blank lines are skipped."""
        total = 0 if progress is None else self.count()
        offset = 0
        with self._opened() as file:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if content.strip():
                    yield Raw(number, content, offset + len(line) - len(content), len(content))
                offset += len(line)
                if progress is not None:
                    progress(number, total)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        must_be_file(self.path, self.wanted, self.origin)
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{self.origin}: cannot be read ({error.strerror}). Give {self.wanted}.") from None

    def content(self, offset: int, size: int, extract: Path) -> bytes:
        """See :class:`RecordFile`."""
        return read_range(self.path, offset, size)

    def made(self, number: int, content: bytes) -> Example | None:
        """See :class:`RecordFile`."""
        return self.make(parse_record(content, self.forms), self.origin, number, self.folder)


def own_records(origin: str, targets: bool = True, path: Path | None = None) -> JsonLines:
    """A user's own records; see :mod:`vislang.data.record`.

    Args:
        origin: the path or address of the file.
        targets: whether a record without a target is bad.
        path: the local path, if it is not ``origin``.
    """
    reader = "own records" if targets else "own records without targets"
    return JsonLines(origin, reader, partial(example_of, targets=targets), path)


def read_jsonl(
    path: Path | str,
    problems: list[Problem],
    progress: Progress | None = None,
    targets: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> list[Example]:
    """Read and check a file of own records; see :func:`~vislang.data.record_file.checked`.

    Args:
        path: the file.
        problems: bad records are skipped, and their problems are added to this list.
        progress: called with (lines read, lines in all).
        targets: whether a record without a target is bad.
        max_pixels: the largest number of pixels of an image.

    Raises:
        DataError: the file cannot be read, or contains no records.
    """
    return read_all(own_records(str(path), targets), problems, progress, max_pixels)


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a JSON Lines file that are not blank, with their numbers from 1.

    Raises:
        DataError: the file cannot be read.
    """
    for number, line, _, _ in own_records(str(path)).scan():
        yield number, line


def parse_record(line: bytes, forms: str = FORMS) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        RecordError: there is none, or a key occurs twice. The message names the ``forms`` of a record.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + 1
        raise RecordError(f"not UTF-8 (byte {at} of the line). Save the file as UTF-8.", "format") from None
    try:
        record = DECODER.decode(text)
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON ({error}). Write one JSON object per line.", "format") from None
    if not isinstance(record, dict):
        raise RecordError(f"a JSON {type(record).__name__}, not an object. A record is one of {forms}.", "format")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise RecordError(f'"{twice}" is in the object twice. Remove one of them.')
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)
