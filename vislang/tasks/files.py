"""Read the files of a benchmark; errors name the file and the record."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vislang.data.jsonl import DECODER, lines_of, parse_record
from vislang.data.problems import DataError, RecordError
from vislang.document import Image, Video
from vislang.files import must_be_file

Made = TypeVar("Made")

VIDEOS = (".mp4", ".avi", ".webm", ".mkv")
"""Endings of videos that were converted."""


def read_text(path: Path) -> str:
    """A text file, unpacked if its name ends in ``.gz``.

    Raises:
        DataError: missing, damaged, or not UTF-8.
    """
    must_be_file(path, "the official file", error=DataError)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        # A byte-order mark at the beginning, as Windows writes it, is no part of the text.
        return data.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzip file, or cut off ({error}). Download it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start + 1}). Save it as UTF-8.") from None


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: missing, or not JSON.
    """
    text = read_text(path)
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}). Download it again.") from None


def listed(path: Path, content: Any, key: str) -> list[Any]:
    """The list under a key of a JSON file.

    Raises:
        DataError: there is no such list.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{path}: has no list {key!r}. Give the official file.")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file, or of a JSON list.

    Raises:
        DataError: missing, or a line is not a JSON object; the message names the line.
    """
    records: list[dict[str, Any]] = []
    for number, line in lines_of(path):
        if not records and line.lstrip().startswith(b"["):
            return read_json(path)
        try:
            records.append(parse_record(line, "a JSON object"))
        except RecordError as error:
            raise DataError(f"{path}:{number}: {error}") from None
    return records


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, by the names of its columns.

    Raises:
        DataError: missing, not UTF-8, not CSV, or a row has more or fewer cells than the header.
    """
    header, *rows = read_rows(path) or [[]]
    if len(set(header)) < len(header):
        raise DataError(f"{path}: its first line names a column twice: {','.join(header)}.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(f"{path}, record {number}: {len(row)} cells; the first line names {len(header)} columns.")
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file that are not blank.

    Raises:
        DataError: missing, not UTF-8, or not CSV.
    """
    try:
        return [row for row in csv.reader(io.StringIO(read_text(path), newline=""), strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{path}: not CSV ({error}).") from None


def written_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def written_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as the text of a JSON Lines file."""
    return "".join(json.dumps(record) + "\n" for record in records)


def each(path: Path, records: Iterable[Any], make: Callable[[Any], Made]) -> list[Made]:
    """Apply ``make`` to each record; errors name the number of the record.

    Raises:
        DataError: there are no records, or ``make`` raises a ValueError, such as the RecordErrors of
            :mod:`vislang.data.fields`, for one.
    """
    if not isinstance(records, Iterable) or isinstance(records, str | dict):
        raise DataError(f"{path}: a JSON {type(records).__name__}, not a list of records. Give the official file.")
    made = []
    for number, record in enumerate(records, start=1):
        try:
            made.append(make(record))
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{path}, record {number}: {str(error).rstrip('.')}.") from None
    if not made:
        raise DataError(f"{path}: contains no records.")
    return made


def keyed(path: Path, records: Iterable[Any], make: Callable[[Any], tuple[str, Made]]) -> dict[str, Made]:
    """Like :func:`each`, as a dictionary: ``make`` returns a key and a value.

    Raises:
        DataError: as there, or two records have the same key.
    """
    found: dict[str, Made] = {}
    numbers: dict[str, int] = {}
    for number, (key, value) in enumerate(each(path, records, make), start=1):
        if key in found:
            raise DataError(f"{path}, record {number}: its id {key} is also that of record {numbers[key]}.")
        found[key], numbers[key] = value, number
    return found


def splits_of(folder: Path, wanted: str, *patterns: str) -> dict[str, Path]:
    """The files of a folder whose names match a pattern, by the split in their names.

    Args:
        folder: folder with the official files.
        wanted: the required files, for messages.
        patterns: regular expressions for whole file names; the group is the split. The first pattern that matches a
            file is used.

    Raises:
        DataError: there is no such folder, it has no such file, or several for one split.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the folder with the official files.")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for pattern in patterns:
        found: dict[str, Path] = {}
        for match in filter(None, (re.fullmatch(pattern, each_name) for each_name in names)):
            if match[1] in found:
                raise DataError(f"{folder}: two files of the split {match[1]}: {found[match[1]].name}, {match[0]}.")
            found[match[1]] = folder / match[0]
        if found:
            return found
    raise DataError(f"{folder}: contains no split. Required files: {wanted}.")


def splits_in(folder: Path, inside: str, wanted: str, *patterns: str) -> dict[str, Path]:
    """Like :func:`splits_of`, in the folder ``inside`` of a folder if there is one, as archives unpack it."""
    return splits_of(folder / inside if (folder / inside).is_dir() else folder, wanted, *patterns)


def one_file(folder: Path, *patterns: str, required: str = "") -> Path:
    """The one file of a folder that matches a pattern; the first pattern that matches a file is used.

    Args:
        folder: the folder.
        patterns: patterns of file names.
        required: all files that the folder should contain, for the message.

    Raises:
        DataError: no file matches, or several do.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the folder with the official files.")
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise DataError(f"{folder}: several files match {pattern}: {', '.join(path.name for path in found)}.")
        if found:
            return found[0]
    wanted = f" Required files: {required}." if required else ""
    raise DataError(f"{folder}: contains no file {' or '.join(patterns)}.{wanted}")


def image_in(folder: Path, *names: str) -> Image:
    """An image by its official name, in the folder or in ``images`` or ``img``. With region files, it need not
    exist."""
    paths = [inside / name for name in names for inside in (folder, folder / "images", folder / "img")]
    return Image(next((path for path in paths if path.is_file()), paths[0]))


def video_in(folder: Path, inside: Iterable[str], name: str, ending: str) -> Video:
    """A video by its name, in the folder or in one of those inside; it may have been converted. It need not exist.

    Args:
        folder: the folder.
        inside: names of folders inside it.
        name: name of the video, without an ending.
        ending: its official ending.
    """
    paths = [folder / place / f"{name}{end}" for end in (ending, *VIDEOS) for place in ("", *inside)]
    return Video(next((path for path in paths if path.is_file()), paths[0]))
