"""``report.html`` of a fine-tuning run: its curves and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vislang.evaluate.page import circumstances, template
from vislang.evaluate.plots import line_plot
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
    plots = [("Loss", line_plot({"loss": [(row["step"], row["loss"]) for row in steps]}, "loss", smooth=True))]
    for name in sorted({name for row in rows for name in row if name.startswith("eval/")}):
        what = name.removeprefix("eval/").replace("_", " ")
        points = [(row["step"], row[name]) for row in rows if name in row]
        plots.append((f"On examples held out: {what}", line_plot({what: points}, what)))
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
