"""``report.html`` of a fine-tuning run: its curves and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.evaluate.page import circumstances, template
from vislang.evaluate.plots import gates_plot, line_plot
from vislang.train.log import read_metrics


def write_labelling_report(folder: Path, table: Sequence[tuple[str, str]] = ()) -> Path:
    """Write the report of the run in ``folder``; returns the path of the page.

    Args:
        folder: of the run.
        table: figures by name; without any, those of ``metrics.json`` that are fractions.
    """
    rows = read_metrics(folder / "metrics.jsonl")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    steps = [row for row in rows if "loss" in row]
    plots = [(name, line_plot({name: points}, "loss", smooth=True)) for name, points in _losses(steps).items()]
    for name in sorted({name for row in rows for name in row if name.startswith("eval/")}):
        what = name.removeprefix("eval/").replace("_", " ")
        points = [(row["step"], row[name]) for row in rows if name in row]
        if len(points) > 1:
            plots.append((f"On examples held out: {what.replace('/', ': ')}", line_plot({what: points}, what)))
    if gates := _gates(steps):
        plots.append(("How far each gate is open", gates_plot(gates)))
    page = template("labelling").render(
        metrics=metrics,
        table=table
        or [
            (name.replace("_", " "), f"{value:.4f}")
            for name, value in metrics.items()
            if isinstance(value, float) and "seconds" not in name
        ],
        plots=plots,
        threads=run["threads"],
        **circumstances(run),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _losses(steps: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """The loss over steps; of each stream its own, which one line would only jump between where they take turns."""
    streams = sorted({name.split("/")[1] for row in steps for name in row if re.fullmatch("loss/.+/.+", name)})
    found: dict[str, list[tuple[float, float]]] = {f"Loss: {stream}": [] for stream in streams} or {"Loss": []}
    for row in steps:
        if not streams:
            found["Loss"].append((row["step"], row["loss"]))
        for stream in streams:
            parts = [value for name, value in row.items() if name.startswith(f"loss/{stream}/")]
            if parts:
                found[f"Loss: {stream}"].append((row["step"], sum(parts)))
    return found


def _gates(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gates, which are logged with each stream though all have the same."""
    rows = []
    for row in steps:
        gates = {name[name.index("gate/") :]: value for name, value in row.items() if "gate/" in name}
        if gates:
            rows.append({"step": row["step"], **gates})
    return rows
