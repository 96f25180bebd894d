"""``report.html`` of a run: a self-contained page with its figures, curves, answers, and what pretraining learned."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.capabilities import Embeds, Progress, Reveals
from vislang.evaluate.evaluation import Evaluation
from vislang.evaluate.gallery import gallery_of
from vislang.evaluate.page import provenance, template
from vislang.evaluate.plots import gates_plot, line_plot
from vislang.evaluate.revealed import revealed_of
from vislang.evaluate.tables import figure_rows, loss_rows
from vislang.example import Example
from vislang.metrics.figure import metric
from vislang.train.log import read_metrics

TITLES = {
    "explained_variance": "Explained variance of the targets",
    "target_std": "Standard deviation of the targets (0: collapsed)",
    "prediction_std": "Standard deviation of the predictions (0: collapsed)",
    "teacher_decay": "Decay of the teacher's average",
}
"""Headings of the plots of diagnostics."""


def write_run_page(
    folder: Path,
    model: Any,
    evaluations: Mapping[str, Evaluation],
    streams: Mapping[str, tuple[Sequence[Example], Sequence[Example]]],
    progress: Progress | None = None,
) -> Path:
    """Write the page of the run in ``folder``, from its metrics and its model.

    Args:
        folder: folder of the run, with ``metrics.jsonl``, ``metrics.json`` and ``run.json``.
        model: the trained model.
        evaluations: its evaluations, by task.
        streams: held-out examples and training examples, by stream.
        progress: called with (parts done, parts in all).

    Returns:
        The path of the page.
    """
    rows = read_metrics(folder / "metrics.jsonl")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    galleries = []
    for evaluation in evaluations.values():
        if (made := gallery_of(model, evaluation, progress)) is not None:
            galleries.append(made)
    revealed = []
    if isinstance(model, Reveals) and isinstance(model, Embeds):
        for number, (name, (kept, trained)) in enumerate(streams.items(), start=1):
            revealed.append({"name": name, **revealed_of(model, kept or trained, trained)})
            if progress is not None:
                progress(number, len(streams))
    page = template("run").render(
        title=_title(metrics, list(streams)),
        metrics=metrics,
        figures=list(figure_rows(metrics["tasks"])),
        losses=list(loss_rows(metrics["held_out"])),
        plots=_plots(rows),
        galleries=galleries,
        streams=revealed,
        threads=run["threads"],
        **provenance(run),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _title(metrics: dict[str, Any], streams: Sequence[str]) -> str:
    """The first figure of a run with one task; otherwise the names of its streams."""
    if len(metrics["tasks"]) == 1:
        ((task, values),) = metrics["tasks"].items()
        name, figure = next(iter(values["figures"].items()))
        if metric(name).percent and figure["value"] is not None:
            return f"{task}: {100 * figure['value']:.1f} % {metric(name).title} on {values['n']:,} examples"
    return f"Trained on {', '.join(streams)}"


def _plots(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Plots over steps with their headings; curves with a single point are left out."""
    steps = [row for row in rows if "loss" in row]
    plots = [(name, line_plot({name: points}, "loss", smooth=True)) for name, points in _losses(steps).items()]
    for name in sorted({name for row in rows for name in row if name.startswith("eval/")}):
        points = [(row["step"], row[name]) for row in rows if name in row]
        stream, _, what = name.removeprefix("eval/").rpartition("/")
        if len(points) > 1 and what not in TITLES:
            kind = metric(what)
            values = [(step, 100 * value) for step, value in points] if kind.percent else points
            label = f"{kind.title}{' (%)' if kind.percent else ''}"
            heading = f"Held-out examples: {f'{stream}: ' if stream else ''}{kind.title}"
            plots.append((heading, line_plot({what: values}, label)))
    for ending, heading in TITLES.items():
        names = sorted({name for row in rows for name in row if name.rpartition("/")[2] == ending})
        if names:
            series = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
            plots.append((heading, line_plot(series, ending.replace("_", " "))))
    if gates := _gates(steps):
        plots.append(("How far each gate is open", gates_plot(gates)))
    return plots


def _losses(steps: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """The loss over steps, separately for each stream, because streams may take turns."""
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
    """The gates over steps; they are logged with each stream, but are the same for all."""
    rows = []
    for row in steps:
        gates = {name[name.index("gate/") :]: value for name, value in row.items() if "gate/" in name}
        if gates:
            rows.append({"step": row["step"], **gates})
    return rows
