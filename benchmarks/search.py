"""Search among 100,000 images, and what an index costs to make.

The vectors of the first rows are artificial: random ones of 512 numbers. The images of the last rows are emoji, through
the tower of the default model; their peer decodes them and runs the tower, and does nothing else. Rows are in processor
time, on which other programs of the machine have less effect; those of queries are also given in wall-clock time.

    vislang data fetch emoji && python benchmarks/search.py [--quick] [--json FILE]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from compare import Row, arguments, medians, report
from memory import rise

from vislang.data.sources import load_source
from vislang.document import Image
from vislang.search.build import build
from vislang.search.corrections import correct, spread
from vislang.search.embedder import open_embedder
from vislang.search.index import COPIED, Index, write_index
from vislang.search.index import Row as Entry
from vislang.search.nearest import search

WIDTH = 512
QUERY_MS = 50
MEMORY_MIB = 32
"""Goals of a query. Its memory does not include pages of the matrix, which the system may drop at any time."""


def random_parts(count: int) -> Iterator[np.ndarray]:
    """Random vectors of length 1, some at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, count, COPIED):
        part = rng.standard_normal((min(COPIED, count - start), WIDTH), dtype=np.float32)
        yield (part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float16)


def artificial(folder: Path, count: int) -> Index:
    """An index of random vectors."""
    folder.mkdir()
    rows = [Entry(f"{number // 1000:05}/{number:08}.jpg", "0" * 64, 1, 1) for number in range(count)]
    model = {"source": "none", "kind": "random", "fingerprint": "0" * 64}
    write_index(folder, 1, folder, model, rows, random_parts(count), WIDTH, [])
    return Index(folder)


def query(folder: Path, vector: np.ndarray) -> list[str]:
    """Open the index, search, and read the names of ten results."""
    index = Index(folder)
    numbers, _ = search(index, vector, 10, exact=True)
    return [row.name for row in index.rows(numbers)]


def corrected(folder: Path, vector: np.ndarray) -> list[str]:
    """The same with sixteen marks."""
    index = Index(folder)
    marked = index.vectors[spread(index.count)[:16]]
    fitted = correct(vector, marked, np.arange(16) % 2 == 0, index.vectors[spread(index.count)])
    numbers, _ = search(index, fitted.vector, 10, exact=True)
    return [row.name for row in index.rows(numbers)]


def times(name: str, run, rounds: int) -> list[Row]:
    """Rows of a query: milliseconds of processor time, and of wall-clock time."""
    rows = []
    for clock, of in ((time.process_time, "processor time"), (time.perf_counter, "wall-clock time")):
        (seconds,) = medians([run], rounds, clock=clock)
        value = 1000 * seconds
        rows.append(Row(f"{name}, {of}", value, "ms", f"<= {QUERY_MS}", value <= QUERY_MS, seconds, 0.0, rounds))
    return rows


def decode_and_run(tower, images: list[Image]) -> None:
    """What cannot be saved: decode each image, and run the tower."""
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            some = images[start : start + 64]
            tower(torch.stack([tower.preprocess(image.decode()) for image in some]))


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(2)
    count, many, rounds = (10_000, 64, 3) if options.quick else (100_000, 320, 15)
    vector = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    vector /= np.linalg.norm(vector)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        index = artificial(folder, count)
        rows += times(f"query among {count:,} images", lambda: query(folder, vector), rounds)
        rows += times(f"query among {count:,} images, 16 marks", lambda: corrected(folder, vector), rounds)
        matrix = index.vectors.nbytes / 2**20
        risen = rise(lambda: query(folder, vector))
        # All pages of the matrix are read once, and count as memory of the process while they are mapped.
        own = risen - matrix
        rows.append(
            Row(
                f"memory of a query, without the {matrix:.0f} MiB of the matrix",
                max(own, 0.0),
                "MiB",
                f"<= {MEMORY_MIB}",
                own <= MEMORY_MIB,
                0.0,
                0.0,
                1,
            )
        )
        photos = Path(temporary) / "photos"
        photos.mkdir()
        for number, pair in enumerate(load_source("emoji-twitter-names")[:many]):
            shutil.copy(Path(str(pair.media[0].source)), photos / f"{number}.png")
        images = [Image(path) for path in sorted(photos.iterdir())]
        embedder = open_embedder("efficientnet-lite0")
        made = iter(range(10**6))
        ours_s, peer_s = medians(
            [
                lambda: build(photos, Path(temporary) / f"made-{next(made)}", embedder),
                lambda: decode_and_run(embedder.model, images),
            ],
            1 if options.quick else 3,
            warmup=1,
            clock=time.process_time,
        )
        ratio = ours_s / peer_s
        title = f"index of {many} images, to decoding and the tower alone"
        rows.append(Row(title, ratio, "ours / peer", "<= 1.1", ratio <= 1.1, ours_s, peer_s, 1 if options.quick else 3))
        last = Path(temporary) / "made-0"
        again_s, peer_s = medians(
            [lambda: build(photos, last, embedder), lambda: decode_and_run(embedder.model, images)],
            1,
            warmup=0,
            clock=time.process_time,
        )
        ratio = again_s / peer_s
        rows.append(
            Row("the same again, nothing changed", ratio, "ours / peer", "<= 0.05", ratio <= 0.05, again_s, peer_s, 1)
        )
    report(rows, options.json)


if __name__ == "__main__":
    main()
