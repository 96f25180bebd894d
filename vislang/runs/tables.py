"""The result of a run as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from vislang.evaluate.figure_rows import loss_rows
from vislang.evaluate.tables import evaluation_table


def run_table(metrics: dict[str, Any]) -> Table:
    """The figures of a run's tasks; without tasks, the losses on held-out examples."""
    if metrics["tasks"]:
        table = evaluation_table(metrics["tasks"])
    else:
        table = Table(title="losses on held-out examples", title_justify="left")
        table.add_column("stream")
        table.add_column("loss")
        table.add_column("value", justify="right")
        for row in loss_rows(metrics["held_out"]):
            table.add_row(*row)
    table.caption = (
        f"{metrics['train_seconds'] / 60:.1f} minutes of training, {metrics['total_seconds'] / 60:.1f} in all"
    )
    return table
