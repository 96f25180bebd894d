"""The curves of a run, or of several over each other, from the rows of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from vislang.evaluate.plots import Plot, Points, gates_plot, line_plot
from vislang.metrics.figure import metric, plain, show
from vislang.train.log import losses_of

Rows = Sequence[Mapping[str, Any]]
"""Of ``metrics.jsonl``."""

DIAGNOSTICS = {
    "explained_variance": "Explained variance of the targets",
    "target_std": "Standard deviation of the targets (0: collapsed)",
    "prediction_std": "Standard deviation of the predictions (0: collapsed)",
    "teacher_decay": "Decay of the teacher's average",
}
"""Headings of the curves of diagnostics; several streams share a plot."""


@dataclass(frozen=True)
class Curve:
    """Values over steps.

    Attributes:
        heading: of its plot.
        label: of the vertical axis, with the unit.
        name: of the line, where a plot may have several.
        points: (step, value).
        smooth: whether a running mean says more than the values.
    """

    heading: str
    label: str
    name: str
    points: Points
    smooth: bool = False


def run_plots(rows: Rows) -> list[Plot]:
    """The plots of one run; a curve of one point is none."""
    by_heading: dict[str, list[Curve]] = {}
    for curve in curves_of(rows):
        by_heading.setdefault(curve.heading, []).append(curve)
    plots = [
        line_plot(heading, {curve.name: curve.points for curve in curves}, curves[0].label, curves[0].smooth)
        for heading, curves in by_heading.items()
    ]
    plots.append(gates_plot("How far each gate is open", _gates(rows)))
    return [plot for plot in plots if plot is not None]


def compared_plots(runs: Mapping[str, Rows]) -> list[Plot]:
    """The plots of several runs, a line for each: what two of them have at least, and the losses over time."""
    by_heading: dict[str, list[tuple[str, Curve]]] = {}
    for run, rows in runs.items():
        for curve in curves_of(rows):
            by_heading.setdefault(curve.heading, []).append((run, curve))
    plots = []
    for heading, found in by_heading.items():
        (_, first), *_ = found
        several = len({curve.name for _, curve in found}) > 1
        # Each run has a place, so that it keeps its colour in every plot.
        series: dict[str, Points] = {} if several else dict.fromkeys(runs, ())
        series |= {f"{run}, {curve.name}" if several else run: curve.points for run, curve in found}
        plots.append(line_plot(heading, series, first.label, first.smooth))
        if first.smooth and not several:
            over_time = {run: _over_minutes(points, runs[run]) for run, points in series.items()}
            plots.append(line_plot(f"{heading}, over time", over_time, first.label, True, "minutes of training"))
    return [plot for plot in plots if plot is not None]


def curves_of(rows: Rows) -> list[Curve]:
    """The losses of a run, what was evaluated, and its diagnostics."""
    steps = [row for row in rows if "loss" in row]
    curves = [Curve(heading, "loss", "", points, smooth=True) for heading, points in _losses(steps).items()]
    for name, points in _evaluated(rows).items():
        stream, _, what = name.rpartition("/")
        if what not in DIAGNOSTICS:
            kind = metric(what)
            values = [(step, 100 * value) for step, value in points] if kind.percent else points
            label = f"{kind.title}{' (%)' if kind.percent else ''}"
            heading = f"Held-out examples: {f'{stream}: ' if stream else ''}{kind.title}"
            curves.append(Curve(heading, label, "", values))
    for ending, heading in DIAGNOSTICS.items():
        for name in sorted({name for row in rows for name in row if name.rpartition("/")[2] == ending}):
            points = [(row["step"], row[name]) for row in rows if name in row]
            curves.append(Curve(heading, ending.replace("_", " "), _source(name, ending), points))
    return curves


def _source(name: str, ending: str) -> str:
    """What a diagnostic was measured on, from its name in the log."""
    stream = name.removeprefix("eval/").removesuffix(ending).rstrip("/")
    examples = "held-out examples" if name.startswith("eval/") else "training examples"
    return f"{stream}, {examples}" if stream else examples


def single_values(rows: Rows) -> list[str]:
    """What was evaluated once only, in words: a curve cannot show it."""
    found = []
    for name, points in _evaluated(rows).items():
        if len(points) == 1:
            ((step, value),) = points
            stream, _, what = name.rpartition("/")
            found.append(
                f"{f'{stream}: ' if stream else ''}{metric(what).title} {show(what, plain(value, 0))} at step {step:,}"
            )
    return found


def typical_speed(rows: Rows) -> dict[str, float]:
    """The median rates of a run, and the most memory that it held, by the names of ``metrics.jsonl``."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(("speed/", "memory/")))
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: max(found) if name.startswith("memory/") else median(found) for name, found in values.items()}


def _losses(steps: Rows) -> dict[str, list[tuple[float, float]]]:
    """The loss over steps, separately for each stream, because streams may take turns."""
    streams = sorted(
        {name.split("/")[1] for row in steps for name in row if name.startswith("loss/") and name.count("/") > 1}
    )
    if not streams:
        return {"Loss": [(row["step"], row["loss"]) for row in steps]}
    found: dict[str, list[tuple[float, float]]] = {f"Loss: {stream}": [] for stream in streams}
    for row in steps:
        for stream, loss in losses_of(row).items():
            found[f"Loss: {stream}"].append((row["step"], loss))
    return found


def _evaluated(rows: Rows) -> dict[str, list[tuple[float, float]]]:
    """What was evaluated, at which steps, by its name."""
    names = sorted({name for row in rows for name in row if name.startswith("eval/")})
    return {name.removeprefix("eval/"): [(row["step"], row[name]) for row in rows if name in row] for name in names}


def _over_minutes(points: Points, rows: Rows) -> Points:
    minutes = {row["step"]: row["seconds"] / 60 for row in rows if "seconds" in row}
    return [(minutes[step], value) for step, value in points if step in minutes]


def _gates(rows: Rows) -> list[dict[str, Any]]:
    """The gates over steps; they are logged with each stream, but are the same for all."""
    found = []
    for row in rows:
        gates = {name[name.index("gate/") :]: value for name, value in row.items() if "gate/" in name}
        if gates:
            found.append({"step": row["step"], **gates})
    return found
