"""The folder of an index: a matrix of vectors, a row of JSON for each image, and ``index.json``, which names both.

Files have the number of their generation in their names. A new generation is written beside the one in use, and counts
once ``index.json`` names it, so that a search never reads a half-written index.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.files import whole_file, write_text
from vislang.metrics.figure import SCHEMA

SUMMARY = "index.json"

COPIED = 8192
"""Rows that are copied at a time when a generation is written."""


@dataclass(frozen=True)
class Row:
    """An image of an index.

    Attributes:
        name: its path, relative to the indexed folder, with ``/``.
        sha256: hash of its content.
        size: in bytes.
        mtime_ns: when it was modified, in nanoseconds.
    """

    name: str
    sha256: str
    size: int
    mtime_ns: int

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and time of modification: a file with another one may have changed."""
        return self.size, self.mtime_ns


class Index:
    """An index, as a search reads it. Vectors and rows stay on disk.

    Attributes:
        folder: its folder.
        images: the indexed folder.
        vectors: (rows, width) float16, each of length 1, memory-mapped.
        model: ``source``, ``kind`` and ``fingerprint`` of the model that made the vectors.
        generation: number of times that the index was written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for _ in range(3):
            self._read_summary()
            try:
                self._open()
                return
            except FileNotFoundError as error:
                missing = error.filename
            # Another process may have written a new generation in the meantime.
        raise damaged(folder, f"{missing} is missing")

    def _read_summary(self) -> None:
        path = self.folder / SUMMARY
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            unfinished = (self.folder / "unfinished").is_dir()
            why = "was not finished" if unfinished else "is not an index (it contains no index.json)"
            raise UserError(f"{self.folder}: {why}. Run: vislang index FOLDER -o {self.folder}") from None
        except (OSError, ValueError) as error:
            raise damaged(self.folder, f"{SUMMARY}: {error}") from None
        if not isinstance(values, dict) or "generation" not in values:
            raise damaged(self.folder, f"{SUMMARY} is not that of an index")
        if values.get("schema") != SCHEMA:
            raise UserError(
                f"{path}: was written by another version of vislang. Delete {self.folder}, and index again."
            )
        try:
            self.generation = int(values["generation"])
            self.images, self.model = Path(values["images"]), dict(values["model"])
            self.count, self.width, self.skipped = (int(values[name]) for name in ("count", "width", "skipped"))
            self.sizes: dict[str, int] = dict(values["files"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self.folder, f"{SUMMARY}: {type(error).__name__}: {error}") from None

    def _open(self) -> None:
        for name, size in self.sizes.items():
            if (found := (self.folder / name).stat().st_size) != size:
                raise damaged(self.folder, f"{name} has {found:,} bytes instead of {size:,}")
        try:
            self.vectors = np.load(self.path("vectors", "npy"), mmap_mode="r")
            self._starts = np.load(self.path("starts", "npy"), mmap_mode="r")
        except ValueError as error:
            raise damaged(self.folder, str(error)) from None
        if self.vectors.shape != (self.count, self.width) or len(self._starts) != self.count + 1:
            raise damaged(self.folder, "its files do not belong together")

    def path(self, what: str, ending: str) -> Path:
        """A file of this generation."""
        return file_of(self.folder, what, self.generation, ending)

    def rows(self, numbers: Iterable[int]) -> list[Row]:
        """Some rows, read one by one."""
        with self.path("rows", "jsonl").open("rb") as file:
            return [self._row(file, int(number)) for number in numbers]

    def _row(self, file: Any, number: int) -> Row:
        start, end = (int(self._starts[n]) for n in (number, number + 1))
        file.seek(start)
        try:
            return Row(**json.loads(file.read(end - start)))
        except (ValueError, TypeError) as error:
            raise damaged(self.folder, f"row {number}: {error}") from None

    def all_rows(self) -> Iterator[Row]:
        """All rows, in the order of their names."""
        with self.path("rows", "jsonl").open("rb") as file:
            for number, line in enumerate(file):
                try:
                    yield Row(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise damaged(self.folder, f"row {number}: {error}") from None

    def number_of(self, name: str) -> int | None:
        """The number of the row of an image, found by bisection; None if it is not in the index."""
        low, high = 0, self.count
        with self.path("rows", "jsonl").open("rb") as file:
            while low < high:
                middle = (low + high) // 2
                found = self._row(file, middle).name
                if found == name:
                    return middle
                low, high = (middle + 1, high) if found < name else (low, middle)
        return None

    def image(self, row: Row) -> Path:
        """The path of an image."""
        return self.images / row.name


def damaged(folder: Path, why: str) -> UserError:
    """The error of an index that cannot be read."""
    return UserError(f"{folder}: the index is damaged ({why}). Delete this folder, and index again.")


def file_of(folder: Path, what: str, generation: int, ending: str) -> Path:
    """A file of a generation."""
    return folder / f"{what}-{generation}.{ending}"


def write_index(
    folder: Path,
    generation: int,
    images: Path,
    model: dict[str, str],
    rows: list[Row],
    vectors: Iterable[np.ndarray],
    width: int,
    skipped: list[dict[str, str]],
) -> None:
    """Write a generation, and make it the one in use.

    Args:
        folder: of the index.
        generation: its number.
        images: the indexed folder.
        model: what made the vectors; see :class:`Index`.
        rows: in the order of their names.
        vectors: those of the rows in parts, float16.
        width: of a vector.
        skipped: ``name`` and ``reason`` of each file that could not be read.
    """
    matrix, lines, starts, left_out = (
        file_of(folder, what, generation, ending)
        for what, ending in (("vectors", "npy"), ("rows", "jsonl"), ("starts", "npy"), ("skipped", "jsonl"))
    )
    with whole_file(matrix) as unfinished, unfinished.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(rows), width)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in vectors:
            file.write(np.ascontiguousarray(part, dtype="<f2").data)
    lengths = np.zeros(len(rows) + 1, dtype=np.int64)
    with whole_file(lines) as unfinished, unfinished.open("wb") as file:
        for number, row in enumerate(rows):
            # ASCII alone, since the name of a file need not be valid UTF-8.
            lengths[number + 1] = file.write(f"{json.dumps(asdict(row))}\n".encode("ascii"))
    with whole_file(starts) as unfinished, unfinished.open("wb") as file:
        np.save(file, lengths.cumsum())
    write_text(left_out, "".join(f"{json.dumps(each)}\n" for each in skipped))
    summary = {
        "schema": SCHEMA,
        "generation": generation,
        "images": str(images),
        "model": model,
        "count": len(rows),
        "width": width,
        "skipped": len(skipped),
        "files": {path.name: path.stat().st_size for path in (matrix, lines, starts, left_out)},
    }
    write_text(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    clear_old(folder, generation)


def clear_old(folder: Path, generation: int) -> None:
    """Delete the files of other generations, and those of an interrupted writing."""
    for what in ("vectors", "rows", "starts", "skipped", "graph"):
        for path in [*folder.glob(f"{what}-*.*"), *folder.glob(f".{what}-*.unfinished")]:
            if path.name.startswith(".") or path.stem != f"{what}-{generation}":
                os.unlink(path)
