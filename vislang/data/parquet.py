"""Parquet files of records: each row is a record, each column a key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from vislang.capabilities import Progress
from vislang.data.jsonl import MakeExample
from vislang.data.problems import DataError, must_be_file
from vislang.data.record import FORMS, KEYS, example_of
from vislang.data.record_file import Raw, RecordFile
from vislang.example import Example

ROWS = 256
"""The number of rows that are read and written at a time."""


class ParquetFile(RecordFile):
    """A Parquet file. Reading a whole row group for each record would be slow, so the index contains a copy of the
    columns as an Arrow file, which is memory-mapped.

    Args:
        origin, reader, path, empty: see :class:`RecordFile`.
        make: makes the example of a row without its null values.
        columns: the required columns; if empty, any of :data:`~vislang.data.record.KEYS` and no others.
    """

    def __init__(
        self,
        origin: str,
        reader: str,
        make: MakeExample,
        columns: Sequence[str] = (),
        path: Path | None = None,
        empty: str = f"contains no records. Each row is one of {FORMS}.",
    ):
        super().__init__(origin, reader, path, empty)
        self.make, self.columns = make, tuple(columns)
        self._batches: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_batches": None}

    def count(self) -> int:
        """See :class:`RecordFile`."""
        with self._opened() as table:
            return table.metadata.num_rows

    def scan(self, extract: Path | None = None, progress: Progress | None = None) -> Iterator[Raw]:
        """See :class:`RecordFile`."""
        with self._opened() as table:
            columns = list(self.columns or table.schema_arrow.names)
            number, total = 0, table.metadata.num_rows
            with _writer(extract) as write:
                for place, batch in enumerate(table.iter_batches(ROWS, columns=columns)):
                    write(batch)
                    for row, record in enumerate(batch.to_pylist()):
                        number += 1
                        yield Raw(number, record, place, row)
                    if progress is not None:
                        progress(number, total)

    def content(self, offset: int, size: int, extract: Path) -> dict[str, Any]:
        """See :class:`RecordFile`."""
        if self._batches is None:
            import pyarrow

            self._batches = pyarrow.ipc.open_file(pyarrow.memory_map(str(extract)))
        return self._batches.get_batch(offset).slice(size, 1).to_pylist()[0]

    def made(self, number: int, content: dict[str, Any]) -> Example | None:
        """See :class:`RecordFile`."""
        known = {name: value for name, value in content.items() if value is not None}
        return self.make(known, self.origin, number, self.folder)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise DataError(f"{self.origin}: Parquet needs pyarrow. Run: pip install 'vislang[data]'") from None
        must_be_file(self.path, "a Parquet file", self.origin)
        try:
            with pyarrow.parquet.ParquetFile(self.path) as table:
                self._check(table.schema_arrow.names)
                yield table
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(
                f"{self.origin}: cannot be read as Parquet ({error}). Copy it again from its origin."
            ) from None

    def _check(self, names: Sequence[str]) -> None:
        """Raise a DataError unless the columns are those of the format."""
        if self.columns and not set(self.columns) <= set(names):
            have, wanted = ", ".join(sorted(names)), " and ".join(self.columns)
            raise DataError(f"{self.origin}: has the columns {have}; it needs {wanted}.")
        unknown = [] if self.columns else [name for name in names if name not in KEYS]
        if unknown:
            near = difflib.get_close_matches(unknown[0], KEYS, 1)
            meant = f'Is "{near[0]}" meant? ' if near else ""
            raise DataError(
                f'{self.origin}: unknown column "{unknown[0]}". {meant}Known are {", ".join(KEYS)}; drop others, or '
                'put them into one under "meta".'
            )


def own_rows(origin: str, targets: bool = True, path: Path | None = None) -> ParquetFile:
    """A user's own records in Parquet; see :mod:`vislang.data.record`.

    Args:
        origin: the path or address of the file.
        targets: whether a record without a target is bad.
        path: the local path, if it is not ``origin``.
    """
    reader = "own rows" if targets else "own rows without targets"
    return ParquetFile(origin, reader, partial(example_of, targets=targets), path=path)


@contextmanager
def _writer(extract: Path | None) -> Iterator[Any]:
    """A function that appends a batch of rows to an Arrow file; it does nothing if ``extract`` is None."""
    writer: Any = None

    def write(batch: Any) -> None:
        nonlocal writer
        if writer is None and extract is not None:
            import pyarrow

            writer = pyarrow.ipc.new_file(str(extract), batch.schema)
        if writer is not None:
            writer.write_batch(batch)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
