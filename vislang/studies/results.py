"""The results of a study, written to disk after each addition, so that it can be stopped and continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vislang.metrics.figure import SCHEMA
from vislang.runs.folder import environment, read_json, write_json


class Results:
    """``results.json`` of a study: the environment, and a row for each measurement.

    A row contains keys that describe the measurement, and the ``figures`` as
    :func:`~vislang.metrics.figure.figures_as_json` gives them.

    Args:
        out: folder of the results; made if it is missing.
        about: other values to record.
    """

    def __init__(self, out: Path, **about: Any):
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "results.json"
        self.saved: dict[str, Any] = read_json(self.path) if self.path.is_file() else {}
        self.rows: list[dict[str, Any]] = self.saved.get("rows", [])
        self.about = about

    def known(self, **keys: Any) -> bool:
        """Whether there is a row with these keys."""
        return any(all(row.get(key) == value for key, value in keys.items()) for row in self.rows)

    def add(self, *rows: dict[str, Any]) -> None:
        """Add rows, and write the file."""
        self.rows += rows
        self.write()

    def write(self) -> None:
        """Write the file atomically."""
        write_json(self.path, {"schema": SCHEMA, **self.about, **environment(), "rows": self.rows})
