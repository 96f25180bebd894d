"""What a study has found so far, on disk after every addition, so that it can be stopped and started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vislang.commands.run_folder import circumstances, write_json


class Results:
    """``results.json`` of a study: the circumstances, and a row for each thing that was measured.

    Args:
        out: its folder, made where there is none.
        about: what else is to be recorded.
    """

    def __init__(self, out: Path, **about: Any):
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "results.json"
        self.kept: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        self.rows: list[dict[str, Any]] = self.kept.get("rows", [])
        self.about = about

    def known(self, **wanted: Any) -> bool:
        """Whether there is such a row."""
        return any(all(row.get(key) == value for key, value in wanted.items()) for row in self.rows)

    def add(self, *rows: dict[str, Any]) -> None:
        """More rows; written at once."""
        self.rows += rows
        self.write()

    def write(self) -> None:
        """Put it on disk, whole."""
        write_json(self.path, {**self.about, **circumstances(), "rows": self.rows})
