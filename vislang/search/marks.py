"""Marks of results as right or wrong, which are kept with an index for each query."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from vislang.errors import UserError
from vislang.files import system_errors, write_text
from vislang.search.index import Index

FILE = "marks.jsonl"


class NotInIndex(UserError):
    """An image that was marked is not in the index; ``name`` is its path as it was given."""

    def __init__(self, index: Index, path: Path):
        super().__init__(
            f"{path}: is not in {index.folder}. Mark images that a search prints, or index the folder again."
        )
        self.name = str(path)


@dataclass(frozen=True)
class Mark:
    """A result that was marked.

    Attributes:
        query: the text, or ``image:`` and the hash of the image, that was searched for.
        name: the result's path, relative to the indexed folder.
        sha256: the hash of its content; the mark does not hold for another image of the same name.
        right: whether it is what was searched for.
    """

    query: str
    name: str
    sha256: str
    right: bool


def read_marks(index: Index, query: str) -> list[Mark]:
    """The marks of a query, the latest of each result.

    Raises:
        UserError: the file of marks is damaged.
    """
    return list({mark.name: mark for mark in _read_all(index) if mark.query == query}.values())


def add_marks(index: Index, marks: Sequence[Mark]) -> None:
    """Keep marks with an index; earlier ones of the same query and result are replaced."""
    with _locked(index):
        kept = {(mark.query, mark.name): mark for mark in [*_read_all(index), *marks]}
        _write(index, list(kept.values()))


def forget_marks(index: Index, query: str) -> int:
    """Delete the marks of a query; returns their number."""
    with _locked(index):
        marks = _read_all(index)
        kept = [mark for mark in marks if mark.query != query]
        if len(kept) < len(marks):
            _write(index, kept)
    return len(marks) - len(kept)


def mark_of(index: Index, query: str, path: Path, right: bool) -> Mark:
    """A mark of an image of an index.

    Args:
        index: which.
        query: see :class:`Mark`.
        path: the image: as a search prints it, or relative to the indexed folder.
        right: whether it is what was searched for.

    Raises:
        NotInIndex: the image is not in the index.
    """
    for candidate in (path.absolute(), index.images / path, path):
        try:
            # The path itself may lead there through a link; one that cannot exist raises ValueError, too.
            found = candidate.resolve() if candidate is path else candidate
            name = found.relative_to(index.images).as_posix()
        except ValueError:
            continue
        if (number := index.number_of(name)) is not None:
            (row,) = index.rows([number])
            return Mark(query, name, row.sha256, right)
    raise NotInIndex(index, path)


def rows_of(index: Index, marks: Sequence[Mark]) -> tuple[list[int], list[bool]]:
    """The rows of marked images, and whether each is right. Images that have changed or are gone are left out."""
    rows, right = [], []
    for mark in marks:
        number = index.number_of(mark.name)
        if number is not None and index.rows([number])[0].sha256 == mark.sha256:
            rows.append(number)
            right.append(mark.right)
    return rows, right


@contextmanager
def _locked(index: Index) -> Iterator[None]:
    """Keep others, such as a server, from changing the marks between reading and writing them."""
    with system_errors(index.folder / FILE), FileLock(index.folder / f".{FILE}.lock"):
        yield


def _read_all(index: Index) -> list[Mark]:
    path = index.folder / FILE
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Mark(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a mark ({error}). Delete this line.") from None
    return found


def _write(index: Index, marks: Sequence[Mark]) -> None:
    write_text(index.folder / FILE, "".join(f"{json.dumps(asdict(mark))}\n" for mark in marks))
