"""Plots as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")

from matplotlib import colormaps
from matplotlib.figure import Figure


def line_plot(series: dict[str, list[tuple[float, float]]], label: str, smooth: bool = False) -> str:
    """Lines over steps.

    Args:
        series: points (step, value) of each line, by name.
        label: label of the vertical axis, with the unit.
        smooth: also draw a running mean.
    """
    figure, axes = _axes(label)
    for name, points in series.items():
        if not points:
            continue
        steps, values = np.array(points, dtype=float).T
        if smooth and len(values) > 20:
            window = max(2, len(values) // 50)
            mean = np.convolve(values, np.ones(window) / window, mode="valid")
            axes.plot(steps, values, color="#9bb8d3", linewidth=0.7)
            axes.plot(steps[window - 1 :], mean, color="#1f4e79", linewidth=1.8)
        elif len(series) > 1:
            axes.plot(steps, values, linewidth=1.6, label=name)
        else:
            axes.plot(steps, values, marker="o" if len(values) < 50 else None, markersize=3.5, color="#1f4e79")
    if len(series) > 1:
        axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def gates_plot(rows: Sequence[dict[str, Any]]) -> str:
    """tanh of each gate over steps: solid lines for attention, dashed lines for feed-forward layers."""
    figure, axes = _axes("tanh(gate)")
    names = [name for name in (rows[0] if rows else {}) if name.startswith("gate/")]
    layers = sorted({int(name.split("/")[1]) for name in names})
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, max(len(layers), 1)))
    for layer, colour in zip(layers, colours, strict=False):
        for part, style in (("attention", "-"), ("feed_forward", "--")):
            values = [row[f"gate/{layer}/{part}"] for row in rows]
            what = "attention" if part == "attention" else "feed-forward"
            axes.plot(
                [row["step"] for row in rows],
                values,
                linestyle=style,
                color=colour,
                linewidth=1.6,
                label=f"layer {layer}, {what}",
            )
    axes.axhline(0, color="#999", linewidth=0.7)
    if names:
        figure.legend(loc="outside right center", fontsize=7, frameon=False)
    return _svg(figure)


def shots_plot(curves: dict[str, list[tuple[int, float, float, float]]], levels: dict[str, float], label: str) -> str:
    """Curves of a metric over the number of shots.

    Args:
        curves: points (shots, value, low, high) of each curve, by name.
        levels: values of baselines, by name, as horizontal lines.
        label: label of the vertical axis, with the unit.
    """
    figure, axes = _axes(label, "examples in the prompt")
    ticks = sorted({shots for points in curves.values() for shots, *_ in points})
    for name, points in curves.items():
        positions = [ticks.index(shots) for shots, *_ in points]
        values, low, high = (np.array([point[side] for point in points]) for side in (1, 2, 3))
        (line,) = axes.plot(positions, values, marker="o", markersize=3.5, linewidth=1.6, label=name)
        axes.fill_between(positions, low, high, alpha=0.18, color=line.get_color(), linewidth=0)
    for (name, value), style in zip(levels.items(), ["--", ":", "-."] * len(levels), strict=False):
        axes.axhline(value, color="#777", linewidth=1, linestyle=style, label=name)
    axes.set_xticks(range(len(ticks)), [str(shots) for shots in ticks])
    figure.legend(loc="outside right center", fontsize=7, frameon=False)
    return _svg(figure)


def _axes(label: str, across: str = "step"):
    figure = Figure(figsize=(6.2, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # With a fixed salt and no date, the same run gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "vislang", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
