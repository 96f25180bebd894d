"""metrics.jsonl: one JSON object a line, in the order of steps, each step once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vislang.data.problems import DataError
from vislang.files import write_text


class MetricsLog:
    """Appends to a run's ``metrics.jsonl``.

    A resumed run first drops the lines after the step that it continues from: they are written again.

    Args:
        path: the file.
        steps_done: steps that the run has behind it.
    """

    def __init__(self, path: Path, steps_done: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(path) if row["step"] <= steps_done] if path.exists() else []
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it is handed to the system when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line that a kill cut short is left out.

    Raises:
        DataError: a line other than the last is not JSON.
    """
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise DataError(f"{path}:{number}: not JSON. Was the file edited?") from None
    return rows
