"""What can be wrong with data, and how it is reported: bad records by line, files that cannot be used at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vislang import files
from vislang.errors import UserError


class DataError(UserError):
    """Data that cannot be used; the message names the file or the set, and the remedy."""


class NoSuchSource(DataError):
    """A word that names no source of data."""


class RecordError(ValueError):
    """A bad record: what is wrong with it and what to do.

    Args:
        message: that.
        kind: of fault, for counting: ``format`` (no JSON, say), ``fields``, ``id``, or that of a
            :class:`~vislang.document.MediaError`.
    """

    def __init__(self, message: str, kind: str = "fields"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Problem:
    """A bad record: its file, its line (0 in what has no lines), what is wrong, and the kind of fault."""

    file: str
    line: int
    message: str
    kind: str = "fields"

    def __str__(self) -> str:
        if self.line:
            return f"{self.file}:{self.line}: {self.message}"
        # A message about a medium begins with its file already.
        return self.message if self.message.startswith(self.file) else f"{self.file}: {self.message}"


def must_be_good(problems: Sequence[Problem], skip: bool, name: str = "", count: int = 0) -> None:
    """Raise an error that lists the first bad records, unless they may be skipped.

    Args:
        problems: the bad records, or the first ones.
        skip: whether they may be skipped.
        name: of the data, for the message.
        count: how many there are, if ``problems`` are the first ones.

    Raises:
        DataError: there are some.
    """
    if problems and not skip:
        count = count or len(problems)
        shown = "\n".join(f"  {problem}" for problem in problems[:10])
        more = f"\n  and {count - 10:,} more" if count > 10 else ""
        bad = "1 bad record" if count == 1 else f"{count:,} bad records"
        raise DataError(
            f"{f'{name}: ' if name else ''}{bad}:\n{shown}{more}\n"
            "Fix them (vislang data check FILE lists all of a file), or add --skip-bad-records to skip them."
        )


def must_be_file(path: Path, wanted: str, name: str = "") -> None:
    """Raise an error unless a path is that of a regular file: opening a named pipe would wait for ever.

    Args:
        path: of the file.
        wanted: what it should be, such as ``a JSON Lines file``.
        name: what to call it, where that is not its path.

    Raises:
        DataError: there is nothing, or a folder, a pipe or a device.
    """
    files.must_be_file(path, wanted, name, DataError)
