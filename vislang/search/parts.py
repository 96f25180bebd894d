"""Finished parts of an index that is being made: what an interrupted run, or another process, leaves to the next."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from vislang.files import whole_file
from vislang.search.index import Row

UNFINISHED = "unfinished"
"""The folder of the parts, in that of the index."""


class Parts:
    """Parts of one model. Each is a file, written whole.

    Args:
        folder: of the index.
        fingerprint: that of the model; parts of another one are deleted by :meth:`read`.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder = folder / UNFINISHED
        self.fingerprint = fingerprint

    def write(self, rows: list[Row], vectors: np.ndarray) -> Path:
        """Write a part; its name is that of no other part of any process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{os.urandom(12).hex()}.safetensors"
        about = {"fingerprint": self.fingerprint, "rows": json.dumps([asdict(row) for row in rows])}
        with whole_file(path) as unfinished:
            safetensors.numpy.save_file({"vectors": vectors.astype(np.float16)}, unfinished, metadata=about)
        return path

    def read(self) -> Iterator[tuple[Path, list[Row]]]:
        """The parts with their rows, the oldest first. Damaged parts and those of another model are deleted."""
        for path in sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns):
            try:
                with safe_open(path, "numpy") as file:
                    about = file.metadata() or {}
                    rows = [Row(**row) for row in json.loads(about.get("rows", "[]"))]
                    whole = file.get_slice("vectors").get_shape()[0] == len(rows)
            except (SafetensorError, ValueError, TypeError):
                whole = False
            if whole and about.get("fingerprint") == self.fingerprint:
                yield path, rows
            else:
                path.unlink(missing_ok=True)

    def vectors(self, path: Path) -> np.ndarray:
        """(rows, width) float16: the vectors of a part."""
        return safetensors.numpy.load_file(path)["vectors"]

    def delete(self) -> None:
        """Delete all parts, once they are in the index."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
