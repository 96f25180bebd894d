"""Benchmarks as their authors publish them: a folder in the official format becomes cases, and decisions become scores.

Each benchmark is a class of its own, in a file of its own; this is what they have in common.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from vislang.case import Case, Decision
from vislang.data.jsonl import DataError
from vislang.document import Image
from vislang.tasks.answers import Proportion

Score = Mapping[str, Proportion | float]
"""Figures by name; shares with their intervals."""

Made = TypeVar("Made")


class Benchmark(ABC):
    """A split of a benchmark.

    Args:
        folder: with the official files.
        split: which split, as the files call it.

    Attributes:
        cases: its records; ``id`` is what predictions are matched by.

    Raises:
        DataError: a file is missing, or a record in it cannot be used; the message names both.
    """

    name: ClassVar[str]
    files: ClassVar[str]
    """Which files are wanted, for messages and the guide."""

    cases: list[Case]

    @abstractmethod
    def __init__(self, folder: Path, split: str): ...

    def together(self, case: Case) -> str:
        """What a case is scored with: a subset takes all cases of which this is the same, or none."""
        return case.id

    @abstractmethod
    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """The official figures. Every case needs a decision, by its id; see :func:`complete`."""

    @abstractmethod
    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """Decisions from a file in the official format for submissions, by id."""


def complete(cases: Sequence[Case], decisions: Mapping[str, Decision], name: str) -> list[Decision]:
    """The decisions in the order of the cases.

    Raises:
        DataError: one is missing. Nothing is scored by halves.
    """
    missing = [case.id for case in cases if case.id not in decisions]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(f"{name}: {len(missing)} of {len(cases)} records have no prediction: {shown}.")
    return [decisions[case.id] for case in cases]


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        DataError: missing, or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start + 1}). Give the official file.") from None


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: missing, or not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}). Download it again.") from None


def listed(path: Path, content: Any, key: str) -> list[Any]:
    """The list under a key of a JSON file.

    Raises:
        DataError: there is none; it is another file, perhaps.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{path}: has no list {key!r}; give the official file.")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file, or of a JSON list.

    Raises:
        DataError: missing, or a line is not a JSON object; the message names the line.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        return read_json(path)
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error}).") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: a JSON {type(record).__name__}, not an object.")
        records.append(record)
    return records


def each(path: Path, records: Iterable[Any], make: Callable[[Any], Made]) -> list[Made]:
    """What is made of each record; whatever is missing in one is told with its number.

    Raises:
        DataError: these are no records, or one lacks a field, or has one of another type.
    """
    if not isinstance(records, Iterable) or isinstance(records, str | dict):
        raise DataError(f"{path}: a JSON {type(records).__name__}, not a list of records. Give the official file.")
    made = []
    for number, record in enumerate(records, start=1):
        try:
            made.append(make(record))
        except KeyError as error:
            raise DataError(f"{path}, record {number}: has no {error}.") from None
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}, record {number}: {error}.") from None
    if not made:
        raise DataError(f"{path}: no records in it.")
    return made


def one_file(folder: Path, *patterns: str) -> Path:
    """The one file of a folder that fits a pattern; the first pattern that any fits counts.

    Raises:
        DataError: there is none, or several.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the folder with the official files.")
    for pattern in patterns:
        try:
            found = sorted(folder.glob(pattern))
        except (NotImplementedError, ValueError):
            raise DataError(
                f"{folder}: {pattern} is no name of a file in it; name the split as the files do."
            ) from None
        if len(found) > 1:
            raise DataError(f"{folder}: several files fit {pattern}: {', '.join(path.name for path in found)}.")
        if found:
            return found[0]
    raise DataError(f"{folder}: no file {' or '.join(patterns)} in it.")


def image_in(folder: Path, *names: str) -> Image:
    """An image by its official name, here or in ``images``; where regions come from files, none need lie there."""
    places = [place / name for name in names for place in (folder, folder / "images", folder / "img")]
    return Image(next((path for path in places if path.is_file()), places[0]))
