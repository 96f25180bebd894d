"""The index of a file of records: the position of each record, so that any of them can be read directly.

One pass checks the fields of every record and writes the index into the cache, where it stays until the file changes.
Entries are read from disk one by one, so neither the index nor the records take memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from filelock import FileLock

from vislang.cache import cache_folder, writing
from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem, RecordError
from vislang.data.ranges import forget_open_files, read_range
from vislang.data.record_file import RecordFile
from vislang.example import Example, Label, kind_of

VERSION = 1
"""The version of the format of an index."""

ENTRY = np.dtype([("offset", "<u8"), ("size", "<u4"), ("number", "<u4"), ("lowest", "<u4"), ("highest", "<u4")])
"""An entry of an index.

``offset`` and ``size`` are the position of the record, ``number`` is its line or row. ``lowest`` and ``highest`` are
the lowest and the highest of its :func:`media_hashes`.
"""

UNPACK = struct.Struct("<QIIII").unpack
"""Unpacks one entry, faster than numpy does."""

CHUNK = 65_536
"""The number of entries that are written or scanned at a time."""

MOST_BAD = 0.5
"""If a larger share of the records is bad, the file is in another format, and indexing stops."""

FIRST = 1000
"""The number of records after which that share is checked."""

CHANGED = "the file was changed or removed while it was being read. Start again."


class IndexedFile(Sequence[Example]):
    """The good records of a file, in order. Each is read when it is accessed. It can be pickled.

    Args:
        file: the file. Its index is made if it does not exist.
        progress: called with (records or bytes done, records or bytes in all).

    Attributes:
        faults: the number of bad records of each kind.
        firsts: the index of the first example with each kind of target and with each label.

    Raises:
        DataError: the file cannot be read, contains no record, or most of its records are bad.
    """

    def __init__(self, file: RecordFile, progress: Progress | None = None):
        self.file = file
        self._index = _index_of(file, _state_of(file), progress)
        forget_open_files()
        self._entries, self._extract = self._index / "entries", self._index / "extract"
        about = json.loads((self._index / "about.json").read_text(encoding="utf-8"))
        self._size: int = about["records"]
        self.faults: Counter[str] = Counter(about["faults"])
        self.firsts: dict[str, int] = about["firsts"]

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        try:
            entry = read_range(self._entries, index * ENTRY.itemsize, ENTRY.itemsize)
            offset, size, number, *_ = UNPACK(entry)
            example = self.file.example(number, self.file.content(offset, size, self._extract))
        except (OSError, RecordError, LookupError, struct.error):
            example = None
        if example is None:
            # The record was good when the index was made.
            raise DataError(f"{self.file.origin}: {CHANGED}")
        return example

    def entries(self, first: int, count: int) -> np.ndarray:
        """Entries of the index, an array (count,) of :data:`ENTRY`; fewer at the end."""
        return np.fromfile(self._entries, ENTRY, count, offset=first * ENTRY.itemsize)

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The whole index in parts: the index of the first entry, and the entries."""
        for first in range(0, len(self), CHUNK):
            yield first, self.entries(first, CHUNK)

    def problems(self) -> Iterator[Problem]:
        """The bad records."""
        with (self._index / "bad.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield Problem(**json.loads(line))


def media_hashes(example: Example) -> list[int]:
    """32-bit hashes of the names of an example's media (of the bytes, if there is no name). Without media, the hash of
    the text."""
    media = example.documents()[0].media
    if not media:
        return [_hash("".join(part for part in example.prompt.parts if isinstance(part, str)).encode())]
    sources = (medium.source if isinstance(medium.source, bytes) else medium.name.encode() for medium in media)
    return [_hash(source) for source in sources]


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=4).digest())


def _state_of(file: RecordFile) -> str:
    """The size and modification time of a file, by which a change is noticed."""
    try:
        found = file.path.stat()
    except OSError as error:
        raise DataError(f"{file.origin}: cannot be read ({error.strerror}).") from None
    return f"{found.st_size} {found.st_mtime_ns}"


def _index_of(file: RecordFile, state: str, progress: Progress | None) -> Path:
    """The folder of a file's index. The index is made if it does not exist.

    Raises:
        DataError: see :class:`IndexedFile`.
        UserError: the cache cannot be written.
    """
    named = f"{VERSION} {file.reader} {file.origin} {file.path.absolute()}"
    parent = cache_folder("indexes", hashlib.sha256(named.encode()).hexdigest()[:32])
    index = parent / hashlib.sha256(state.encode()).hexdigest()[:32]
    # The processes of one run need the same index at the same time.
    with FileLock(parent / "lock"):
        if not (index / "about.json").is_file():
            with writing(parent), tempfile.TemporaryDirectory(dir=parent, prefix=".unfinished-") as unfinished:
                whole = Path(unfinished) / "whole"
                whole.mkdir()
                about = _made(file, whole, progress)
                if _state_of(file) != state:
                    raise DataError(f"{file.origin}: {CHANGED}")
                (whole / "about.json").write_text(json.dumps(about), encoding="utf-8")
                for old in parent.glob("[!.]*"):
                    if old.is_dir():
                        shutil.rmtree(old, ignore_errors=True)
                os.replace(whole, index)
    return index


def _made(file: RecordFile, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Write the index of a file into a folder; returns the content of ``about.json``."""
    firsts: dict[str, int] = {}
    faults: Counter[str] = Counter()
    entries: list[tuple[int, int, int, int, int]] = []
    good = 0
    with (folder / "entries").open("wb") as index, (folder / "bad.jsonl").open("w", encoding="utf-8") as bad:
        for number, content, offset, size in file.scan(folder / "extract", progress):
            try:
                example = file.example(number, content)
            except RecordError as error:
                problem = file.problem(number, content, error)
                bad.write(json.dumps(vars(problem)) + "\n")
                faults[problem.kind] += 1
                if good + faults.total() >= FIRST and faults.total() > MOST_BAD * (good + faults.total()):
                    raise DataError(
                        f"{file.origin}: {faults.total():,} of the first {good + faults.total():,} records are bad. "
                        f"The last one: {problem}"
                    ) from None
                continue
            if example is None:
                continue
            hashes = media_hashes(example)
            entries.append((offset, size, number, min(hashes), max(hashes)))
            for what in _firsts_of(example):
                firsts.setdefault(what, good)
            good += 1
            if len(entries) == CHUNK:
                index.write(np.array(entries, ENTRY).tobytes())
                entries = []
        index.write(np.array(entries, ENTRY).tobytes())
    if not good and not faults:
        raise DataError(f"{file.origin}: {file.empty}")
    return {"records": good, "faults": faults, "firsts": firsts}


def _firsts_of(example: Example) -> list[str]:
    kind = kind_of(example.target)
    return [kind, f"{kind} {example.target.name}"] if isinstance(example.target, Label) else [kind]
