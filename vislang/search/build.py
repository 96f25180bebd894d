"""Make an index of a folder of images, or bring it up to date.

Only new and changed images are embedded. Finished parts are kept on disk, so an interrupted run continues where it
stopped. Several processes embed a share of the images each, and the first one merges their parts.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vislang.capabilities import Progress
from vislang.document import Image, MediaError
from vislang.errors import UserError
from vislang.runs.folder import locked
from vislang.search.embedder import Embedder
from vislang.search.index import COPIED, SUMMARY, Index, Row, clear_old, write_index
from vislang.search.listing import Skipped, list_images, must_have_images
from vislang.search.parts import Parts
from vislang.train.processes import Processes

PART_ROWS = 1024
PART_SECONDS = 60.0
"""A part is written after so many images, or after so many seconds."""


@dataclass(frozen=True)
class Built:
    """What a run did.

    Attributes:
        count: images in the index.
        embedded: images whose vectors were computed, in all processes and since an interrupted run started.
        deleted: images that are no longer in the folder.
        skipped: files that could not be read.
        changed: whether a new generation of the index was written.
    """

    count: int
    embedded: int
    deleted: int
    skipped: int
    changed: bool


Source = tuple[Path | None, int]
"""Where a vector is: a part, or None for the index, and its row there."""


class Known:
    """The vectors that need not be computed again: those of the index and of unfinished parts.

    Args:
        index: the index, if there is one.
        parts: the parts.
    """

    def __init__(self, index: Index | None, parts: Parts):
        self.index, self.parts = index, parts
        self.by_name: dict[str, tuple[Row, Source]] = {}
        self.by_content: dict[str, Source] = {}
        self.indexed = [] if index is None else list(index.all_rows())
        for number, row in enumerate(self.indexed):
            self._add(row, (None, number))
        self.read_parts()

    def read_parts(self) -> None:
        """Read the parts that are there now, also those of other processes."""
        for path, rows in self.parts.read():
            for number, row in enumerate(rows):
                self._add(row, (path, number))

    def _add(self, row: Row, source: Source) -> None:
        self.by_name[row.name] = row, source
        self.by_content.setdefault(row.sha256, source)

    def is_current(self, name: str, stamp: tuple[int, int]) -> bool:
        """Whether an image has a vector, and has not been modified since."""
        return name in self.by_name and self.by_name[name][0].stamp == stamp

    def vectors(self, sources: list[Source]) -> Iterator[np.ndarray]:
        """The vectors from several sources, in order, some at a time."""
        opened: dict[Path, np.ndarray] = {}
        for start in range(0, len(sources), COPIED):
            some = sources[start : start + COPIED]
            by_path: dict[Path | None, list[int]] = {}
            for place, (path, _) in enumerate(some):
                by_path.setdefault(path, []).append(place)
            rows: np.ndarray | None = None
            for path, places in by_path.items():
                if path is None:
                    assert self.index is not None
                    matrix = self.index.vectors
                else:
                    if path not in opened:
                        opened[path] = self.parts.vectors(path)
                    matrix = opened[path]
                if rows is None:
                    rows = np.empty((len(some), matrix.shape[1]), dtype=np.float16)
                rows[places] = matrix[[some[place][1] for place in places]]
            assert rows is not None
            yield rows


def build(
    folder: Path,
    out: Path,
    embedder: Embedder,
    batch_size: int = 64,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Built:
    """Make an index, or bring it up to date. All processes call it.

    Args:
        folder: the images are in it and in the folders inside it.
        out: folder of the index.
        embedder: makes the vectors.
        batch_size: images that are embedded at once.
        processes: those that work together.
        progress: called with (images embedded by this process, images that it has to embed).

    Raises:
        UserError: there are no images, or none can be read, or the index is one of another model or folder.
    """
    processes = processes or Processes()
    listed, skipped = list_images(folder)
    must_have_images(folder)
    if not listed:
        raise UserError(f"{folder}: none of its images can be read ({skipped[0].name}: {skipped[0].reason}).")
    if processes.is_first:
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            return _build(folder, out, embedder, batch_size, processes, progress, listed, skipped)
    return _build(folder, out, embedder, batch_size, processes, progress, listed, skipped)


def _build(
    folder: Path,
    out: Path,
    embedder: Embedder,
    batch_size: int,
    processes: Processes,
    progress: Progress | None,
    listed: dict[str, tuple[int, int]],
    skipped: list[Skipped],
) -> Built:
    parts = Parts(out, embedder.fingerprint)
    index = earlier(out, folder, embedder)
    known = Known(index, parts)
    # Nobody writes a part before all have read those that are there.
    processes.gather(None)
    own = [
        name
        for name in sorted(listed)
        if zlib.crc32(name.encode(errors="surrogateescape")) % processes.count == processes.rank
    ]
    to_do = [name for name in own if not known.is_current(name, listed[name])]
    unread = Share(folder, listed, known, parts, embedder).embed(to_do, batch_size, progress)
    everywhere = [each for some in processes.gather(unread) for each in some]
    return processes.from_first(lambda: _merge(folder, out, embedder, known, listed, [*skipped, *everywhere]))


class Share:
    """The images that one process embeds.

    Args:
        folder: the images are in it.
        listed: size and time of modification of each image.
        known: vectors that need not be computed.
        parts: where the others go.
        embedder: makes them.
    """

    def __init__(
        self, folder: Path, listed: dict[str, tuple[int, int]], known: Known, parts: Parts, embedder: Embedder
    ):
        self.folder, self.listed, self.known, self.parts, self.embedder = folder, listed, known, parts, embedder
        self.rows: list[Row] = []
        self.vectors: list[np.ndarray] = []
        self.skipped: list[Skipped] = []

    def embed(self, names: list[str], batch_size: int, progress: Progress | None) -> list[Skipped]:
        """Embed some images and write them in parts; returns what could not be read."""
        written = time.monotonic()
        try:
            for start in range(0, len(names), batch_size):
                self._batch(names[start : start + batch_size])
                if len(self.rows) >= PART_ROWS or time.monotonic() - written > PART_SECONDS:
                    self._write()
                    written = time.monotonic()
                if progress is not None:
                    progress(min(start + batch_size, len(names)), len(names))
        finally:
            # Also after an error or Ctrl-C.
            self._write()
        return self.skipped

    def _batch(self, names: list[str]) -> None:
        new: dict[str, Image] = {}
        of: dict[str, list[Row]] = {}
        for name in names:
            image = Image(self.folder / name)
            try:
                row = Row(name, image.content_hash, *self.listed[name])
            except MediaError as error:
                self._skip(name, error)
                continue
            if row.sha256 in self.known.by_content:
                # A copy, a file that was moved, or one that was only touched.
                (vectors,) = self.known.vectors([self.known.by_content[row.sha256]])
                self._keep([row], vectors)
                continue
            new.setdefault(row.sha256, image)
            of.setdefault(row.sha256, []).append(row)
        for content, vector in self._embedded(new, of).items():
            self._keep(of[content], np.repeat(vector[None], len(of[content]), axis=0))

    def _embedded(self, new: dict[str, Image], of: dict[str, list[Row]]) -> dict[str, np.ndarray]:
        """The vector of each content; images that cannot be decoded are left out."""
        if not new:
            return {}
        try:
            return dict(zip(new, self.embedder.images(list(new.values())), strict=True))
        except MediaError:
            # One of them is damaged; only then each is embedded on its own.
            found = {}
            for content, image in new.items():
                try:
                    (found[content],) = self.embedder.images([image])
                except MediaError as error:
                    for row in of[content]:
                        self._skip(row.name, error)
            return found

    def _keep(self, rows: list[Row], vectors: np.ndarray) -> None:
        self.rows += rows
        self.vectors.append(vectors.astype(np.float16))

    def _skip(self, name: str, error: MediaError) -> None:
        self.skipped.append(Skipped(name, str(error)))

    def _write(self) -> None:
        if self.rows:
            self.parts.write(self.rows, np.concatenate(self.vectors))
            self.rows, self.vectors = [], []


def earlier(out: Path, folder: Path, embedder: Embedder) -> Index | None:
    """The index that is brought up to date, if there is one.

    Raises:
        UserError: it is damaged, or one of another model or folder.
    """
    if not (out / SUMMARY).is_file():
        strange = (
            {path.name for path in out.iterdir()} - {"unfinished", "run.lock", "marks.jsonl"} if out.is_dir() else set()
        )
        if any(not name.startswith((".", "vectors-", "rows-", "starts-", "skipped-")) for name in strange):
            raise UserError(f"{out}: is not empty and contains no index. Choose another folder with -o.")
        return None
    index = Index(out)
    must_be_of(index, embedder)
    if index.images != folder and index.images.is_dir():
        raise UserError(
            f"{out}: is an index of {index.images}. Choose another folder with -o, or delete it to index {folder}."
        )
    return index


def must_be_of(index: Index, embedder: Embedder) -> None:
    """Raise an error unless a model made the vectors of an index.

    Raises:
        UserError: another one did; the message names both.
    """
    if index.model["fingerprint"] != embedder.fingerprint:
        made = f"{index.model['source']} ({index.model['kind']}, hash {index.model['fingerprint'][:12]})"
        raise UserError(
            f"{index.folder}: was made with {made}, and {embedder.name} is another model. Give that one with --model, "
            "or make a new index with this one (vislang index, with another -o)."
        )


def _merge(
    folder: Path,
    out: Path,
    embedder: Embedder,
    known: Known,
    listed: dict[str, tuple[int, int]],
    skipped: list[Skipped],
) -> Built:
    """Write the next generation from the index and all parts, unless nothing has changed."""
    known.read_parts()
    index = known.index
    names = [name for name in sorted(listed) if known.is_current(name, listed[name])]
    if not names:
        first = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise UserError(f"{folder}: none of {len(listed):,} images can be read{first}.")
    rows, sources = map(list, zip(*(known.by_name[name] for name in names), strict=True))
    embedded = len({row.sha256 for row in rows} - {row.sha256 for row in known.indexed})
    deleted = len({row.name for row in known.indexed} - set(names))
    faults = [asdict(each) for each in sorted(skipped, key=lambda each: each.name)]
    left_out = [] if index is None else read_skipped(index)
    changed = index is None or rows != known.indexed or faults != left_out or index.images != folder
    if changed:
        model = {"source": embedder.source, "kind": embedder.kind, "fingerprint": embedder.fingerprint}
        vector = next(known.vectors(sources[:1]))
        generation = 1 if index is None else index.generation + 1
        clear_old(out, 0 if index is None else index.generation)
        write_index(out, generation, folder, model, rows, known.vectors(sources), vector.shape[1], faults)
    known.parts.delete()
    return Built(len(rows), embedded, deleted, len(skipped), changed)


def read_skipped(index: Index) -> list[dict[str, str]]:
    """``name`` and ``reason`` of each file that could not be read."""
    return [json.loads(line) for line in index.path("skipped", "jsonl").read_text(encoding="utf-8").splitlines()]
