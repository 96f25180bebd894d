"""The rows of an index that are most similar to a query: an exact product in chunks, or a graph above a million rows.

The matrix stays on disk in half precision. A chunk of it is converted to float32 and multiplied while it is in the
processor's cache; beside the chunk, memory holds one number for each row.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vislang.capabilities import Progress
from vislang.files import whole_file
from vislang.search.index import Index, damaged, file_of

CHUNK_VALUES = 2**19
"""Numbers that are converted at once: 2 MB in float32."""

EXACT_UP_TO = 1_000_000
"""Above so many rows, a graph is searched if there is one."""

ADDED = 65_536
"""Rows that are added to a graph at a time."""


def similarities(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(rows,) float32: the exact product of each row with a query.

    Args:
        vectors: (rows, width) float16; it may be memory-mapped.
        query: (width,) float32.
    """
    rows, width = vectors.shape
    chunk = max(1, CHUNK_VALUES // width)
    converted = torch.empty(min(chunk, rows), width)
    wanted = torch.from_numpy(np.ascontiguousarray(query, dtype=np.float32))
    found = torch.empty(rows)
    for start in range(0, rows, chunk):
        # A copy of 1 MB: torch reads no memory that must not be written.
        part = torch.from_numpy(np.array(vectors[start : start + chunk]))
        torch.mv(converted[: len(part)].copy_(part), wanted, out=found[start : start + len(part)])
    return found.numpy()


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the highest scores, the highest first; equal ones in the order of their rows."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: count - len(above)]
    chosen = np.concatenate([above, equal])
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def search(
    index: Index,
    query: np.ndarray,
    count: int,
    exact: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are most similar to a query, and their similarities.

    Args:
        index: which.
        query: (width,) float32 of length 1.
        count: number of rows.
        exact: also above :data:`EXACT_UP_TO` rows.
        note: called with a message where a graph could not be used.

    Raises:
        UserError: the index is damaged.
    """
    graph = graph_of(index)
    if not exact and graph.is_file():
        if has_usearch():
            return _by_graph(index, graph, query, count)
        note("usearch is not installed, so all rows are compared. Run: pip install 'vislang[search]'")
    scores = similarities(index.vectors, query)
    if not np.isfinite(scores).all():
        raise damaged(index.folder, "a vector is not a number")
    rows = best(scores, count)
    return rows, scores[rows]


def has_usearch() -> bool:
    """Whether the optional package is installed."""
    return importlib.util.find_spec("usearch") is not None


def graph_of(index: Index) -> Path:
    """The file of the graph of an index; it need not exist."""
    return file_of(index.folder, "graph", index.generation, "usearch")


def write_graph(index: Index, progress: Progress | None = None) -> None:
    """Make the graph of an index (HNSW; Malkov and Yashunin 2018), with which a search need not compare all rows.

    Args:
        index: which.
        progress: called with (rows done, rows in all).
    """
    from usearch.index import Index as Graph

    graph = Graph(ndim=index.width, metric="ip", dtype="f16")
    for start in range(0, index.count, ADDED):
        part = np.array(index.vectors[start : start + ADDED])
        graph.add(np.arange(start, start + len(part), dtype=np.uint64), part)
        if progress is not None:
            progress(start + len(part), index.count)
    with whole_file(graph_of(index)) as unfinished:
        graph.save(str(unfinished))


def _by_graph(index: Index, path: Path, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    from usearch.index import Index as Graph

    graph = Graph.restore(str(path), view=True)
    if graph is None or len(graph) != index.count:
        raise damaged(index.folder, f"{path.name} does not belong to its rows")
    rows = np.sort(graph.search(query.astype(np.float16), min(count, index.count)).keys.astype(np.int64))
    # The graph's own similarities are rounded.
    scores = similarities(np.asarray(index.vectors[rows]), query)
    order = best(scores, len(rows))
    return rows[order], scores[order]
