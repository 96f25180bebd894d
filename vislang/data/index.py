"""The index of a file of records: where each one lies, so that any of them is read without those before it.

It is made once, in one pass that checks the fields of every record, and kept in the cache until the file changes. It is
read from disk, entry by entry: neither it nor the records take memory.
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
"""Of the form of an index."""

ENTRY = np.dtype([("offset", "<u8"), ("size", "<u4"), ("number", "<u4"), ("lowest", "<u4"), ("highest", "<u4")])
"""An entry of an index.

``offset`` and ``size`` say where the record lies, ``number`` is its line or row. ``lowest`` and ``highest`` are of the
hashes of its media, by their names (:func:`media_hashes`).
"""

UNPACK = struct.Struct("<QIIII").unpack
"""One entry as numbers, without numpy's start."""

CHUNK = 65_536
"""Entries that are written, or read through, together."""

MOST_BAD = 0.5
"""Share of bad records above which a file is not what it was taken for."""

FIRST = 1000
"""Records that are read before that share counts."""

CHANGED = "was changed, or taken away, while it was read. Start again."


class IndexedFile(Sequence[Example]):
    """The good records of a file, in their order, each read when it is asked for. It can be pickled.

    Args:
        file: the file. Its index is made if there is none.
        progress: called with (records or bytes done, of how many).

    Attributes:
        faults: how many bad records there are, by kind.
        firsts: for each kind of target, and each label, the first example with it.

    Raises:
        DataError: the file cannot be read, has no record in it, or most of them are bad.
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
            # It was a good record when the index was made.
            raise DataError(f"{self.file.origin}: {CHANGED}")
        return example

    def entries(self, first: int, count: int) -> np.ndarray:
        """A part of the index: (count,) of :data:`ENTRY`, fewer at the end."""
        return np.fromfile(self._entries, ENTRY, count, offset=first * ENTRY.itemsize)

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The whole index, a part at a time: the number of the first entry, and the entries."""
        for first in range(0, len(self), CHUNK):
            yield first, self.entries(first, CHUNK)

    def problems(self) -> Iterator[Problem]:
        """The bad records."""
        with (self._index / "bad.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield Problem(**json.loads(line))


def media_hashes(example: Example) -> list[int]:
    """32-bit hashes of the names of an example's media, or of their bytes where they have no name; of the text where
    there are no media."""
    media = example.documents()[0].media
    if not media:
        return [_hash("".join(part for part in example.prompt.parts if isinstance(part, str)).encode())]
    sources = (medium.source if isinstance(medium.source, bytes) else medium.name.encode() for medium in media)
    return [_hash(source) for source in sources]


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=4).digest())


def _state_of(file: RecordFile) -> str:
    """What changes when the file does."""
    try:
        found = file.path.stat()
    except OSError as error:
        raise DataError(f"{file.origin}: cannot be read ({error.strerror}).") from None
    return f"{found.st_size} {found.st_mtime_ns}"


def _index_of(file: RecordFile, state: str, progress: Progress | None) -> Path:
    """The folder of a file's index, which is made if there is none.

    Raises:
        DataError: see :class:`IndexedFile`.
        UserError: the cache cannot be written.
    """
    named = f"{VERSION} {file.reader} {file.origin} {file.path.absolute()}"
    parent = cache_folder("indexes", hashlib.sha256(named.encode()).hexdigest()[:32])
    index = parent / hashlib.sha256(state.encode()).hexdigest()[:32]
    # Processes of one run need the same index at the same time.
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
    """Write the index of a file into a folder; returns what is recorded beside it."""
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
                        f"The last of them: {problem}"
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
