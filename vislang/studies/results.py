"""The results of a study, written to disk after each addition, so that it can be stopped and continued."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vislang.errors import UserError
from vislang.metrics.figure import SCHEMA
from vislang.runs.folder import environment, read_json, write_json


class Results:
    """``results.json`` of a study: the environment, and a row for each measurement.

    A row contains keys that describe the measurement, and the ``figures`` as
    :func:`~vislang.metrics.figure.figures_as_json` gives them.

    Args:
        out: folder of the results; made if it is missing.
        about: other values to record.

    Raises:
        UserError: ``out`` is no folder, or there is such a file and it does not hold results.
    """

    def __init__(self, out: Path, **about: Any):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{out}: it or a folder above it is a file. Give the path of a folder.") from None
        self.path = out / "results.json"
        self.saved: dict[str, Any] = read_results(self.path) if self.path.is_file() else {"rows": []}
        self.rows: list[dict[str, Any]] = self.saved["rows"]
        self.about = about

    def known(self, **keys: Any) -> bool:
        """Whether there is a row with these keys."""
        return any(all(row.get(key) == value for key, value in keys.items()) for row in self.rows)

    def forget(self, **keys: Any) -> None:
        """Remove the rows with these keys; the file keeps them until the next :meth:`write`."""
        self.rows[:] = [row for row in self.rows if any(row.get(key) != value for key, value in keys.items())]

    def add(self, *rows: dict[str, Any]) -> None:
        """Add rows, and write the file."""
        self.rows += rows
        self.write()

    def write(self) -> None:
        """Write the file atomically."""
        write_json(self.path, {"schema": SCHEMA, **self.about, **environment(), "rows": self.rows})


def read_results(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """The content of a ``results.json``.

    Args:
        path: the file.
        keys: what each of its rows must have.

    Raises:
        UserError: it is missing, damaged, or holds something else.
    """
    saved = read_json(path)
    rows = saved.get("rows") if isinstance(saved, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(keys) for row in rows):
        raise UserError(f"{path}: holds no rows of results. Restore it, or move it away to start again.")
    return saved
