"""``vislang tasks``: list the tasks, and how a model would answer each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from vislang.console import console


@dataclass(frozen=True)
class Tasks:
    """List the tasks, and how a model would answer each.

    Attributes:
        model: folder of a model, or a Hub id; the list then says how it would answer each task, or why it cannot
        json: print one JSON object with an entry for each task
    """

    model: str | None = None
    json: bool = False

    def run(self) -> int:
        """Print the list; returns 0."""
        from vislang.tasks.catalogue import TASKS

        rows: dict[str, dict[str, Any]] = {
            name: {"target": entry.kind, "metrics": list(entry.metrics), "media": sorted(entry.media)}
            for name, entry in TASKS.items()
        }
        if self.model is not None:
            from vislang.evaluate.ways import cell, why_not
            from vislang.models.loading import load

            model = load(self.model)
            for name, entry in TASKS.items():
                found = cell(model, entry)
                reason = why_not(model, entry) if self.json else found.why_not
                rows[name] |= {"how": found.way, "why_not": reason}
        if self.json:
            print(json.dumps(rows))
            return 0
        console.print(self._table(TASKS, rows))
        if self.model is None:
            console.print("vislang tasks --model DIR lists how a model would answer each task.")
        return 0

    def _table(self, tasks: Any, rows: dict[str, dict[str, Any]]) -> Table:
        table = Table()
        for heading in ("task", "target", "metrics"):
            table.add_column(heading, overflow="fold")
        table.add_column("how the model answers" if self.model else "description", overflow="fold")
        for name, row in rows.items():
            last = row["how"] or f"[dim]not: it {row['why_not']}[/dim]" if self.model else tasks[name].about
            table.add_row(tasks[name].spec, row["target"], ", ".join(row["metrics"][:3]), last)
        return table
