"""Plots as SVG text, to stand inside a page: in the page's colours, light or dark, with the key below as text.

A plot is drawn about as wide as a page shows it, so that its type has about the size of the page's.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vislang.figures import svg
from vislang.metrics.calibration import Bin

SERIES = 8
"""Colours for series that a page has; more series take them again, with other dashes."""

DASHES = ("solid", "dashed", "dotted", "dashdot")

_INK, _LINE = "#010101", "#020202"
"""Stand for the page's own colours of text and of fine lines: matplotlib knows no CSS."""


class Key(NamedTuple):
    """A line of a plot, for the key below it: its name, its colour in CSS, its dashes."""

    name: str
    colour: str
    dash: str


@dataclass(frozen=True)
class Plot:
    """A plot for a page.

    Attributes:
        heading: what it shows.
        svg: the drawing.
        keys: its lines; empty where there is one only.
    """

    heading: str
    svg: str
    keys: Sequence[Key] = ()


Points = Sequence[tuple[float, float]]
"""Values at steps."""


def line_plot(
    heading: str, series: Mapping[str, Points], label: str, smooth: bool = False, across: str = "step"
) -> Plot | None:
    """Lines over steps; None where no series has two points, since one point is no curve.

    Args:
        heading: of the plot.
        series: points (step, value) by name. Each keeps its colour, whether or not others are drawn.
        label: of the vertical axis, with the unit.
        smooth: draw a running mean, and the values themselves faintly behind it.
        across: label of the horizontal axis.
    """
    if all(len(points) < 2 for points in series.values()):
        return None
    figure, axes = _axes(label, across)
    keys = []
    for number, (name, points) in enumerate(series.items()):
        if len(points) < 2:
            continue
        colour, dash = _style(number)
        keys.append(Key(name, _css(colour), dash))
        steps, values = np.array(points, dtype=float).T
        if smooth and len(values) > 20:
            window = max(2, len(values) // 50)
            mean = np.convolve(values, np.ones(window) / window, mode="valid")
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
            axes.plot(steps[window - 1 :], mean, color=colour, linewidth=1.8, linestyle=dash)
        else:
            marker = "o" if len(values) < 50 else None
            axes.plot(steps, values, color=colour, linewidth=1.8, linestyle=dash, marker=marker, markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=across == "step"))
    return Plot(heading, _svg(figure), keys if len(series) > 1 else ())


def gates_plot(heading: str, rows: Sequence[Mapping[str, Any]]) -> Plot | None:
    """tanh of each gate over steps: full lines for attention, dashed ones for feed-forward; None of one step."""
    names = [name for name in (rows[0] if rows else {}) if name.startswith("gate/")]
    if len(rows) < 2 or not names:
        return None
    figure, axes = _axes("tanh(gate)")
    axes.axhline(0, color=_LINE, linewidth=1)
    layers = sorted({int(name.split("/")[1]) for name in names})
    keys = []
    for number, layer in enumerate(layers):
        # From cyan over blue to red: colours that are neither too light on white nor too dark on black.
        colour = _hex(colorsys.hls_to_rgb(0.5 + 0.5 * number / max(len(layers) - 1, 1), 0.52, 0.7))
        for part, what, dash in (("attention", "attention", "solid"), ("feed_forward", "feed-forward", "dashed")):
            values = [row[f"gate/{layer}/{part}"] for row in rows]
            axes.plot([row["step"] for row in rows], values, linestyle=dash, color=colour, linewidth=1.8)
            keys.append(Key(f"layer {layer}, {what}", colour, dash))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return Plot(heading, _svg(figure), keys)


def shots_plot(
    heading: str,
    curves: Mapping[str, list[tuple[int, float, float, float]]],
    levels: Mapping[str, float],
    label: str,
    banded: Collection[str],
) -> Plot:
    """How well a model does with so many examples in its prompt.

    Args:
        heading: of the plot.
        curves: points (shots, value, low, high) by name.
        levels: values that do not go by shots, by name: baselines.
        label: of the vertical axis, with the unit.
        banded: the curves whose intervals are drawn; more than a few bands cannot be told apart.
    """
    figure, axes = _axes(label, "examples in the prompt")
    ticks = sorted({shots for points in curves.values() for shots, *_ in points})
    keys = []
    for number, (name, points) in enumerate(curves.items()):
        colour, dash = _style(number)
        positions = [ticks.index(shots) for shots, *_ in points]
        values, low, high = (np.array([point[side] for point in points]) for side in (1, 2, 3))
        width = 2.2 if name in banded else 1.2
        axes.plot(positions, values, marker="o", markersize=3.5, linewidth=width, color=colour, linestyle=dash)
        if name in banded:
            axes.fill_between(positions, low, high, alpha=0.18, color=colour, linewidth=0)
        keys.append(Key(name, _css(colour), dash))
    for number, (name, value) in enumerate(levels.items()):
        dash = ("dashed", "dotted", "dashdot")[number % 3]
        axes.axhline(value, color=_INK, linewidth=1.2, linestyle=dash)
        keys.append(Key(name, "currentColor", dash))
    axes.set_xticks(range(len(ticks)), [str(shots) for shots in ticks])
    return Plot(heading, _svg(figure), keys)


def risk_plot(heading: str, curves: Mapping[str, list[tuple[float, float, float, float]]], allowed: float) -> Plot:
    """How many answers are wrong if only the surest are given.

    Args:
        heading: of the plot.
        curves: points (coverage, risk, low, high), in per cent, by name.
        allowed: the largest risk, in per cent.
    """
    figure, axes = _axes("wrong answers (%)", "answered questions (%)")
    keys = []
    for number, (name, points) in enumerate(curves.items()):
        colour, dash = _style(number)
        coverages, values, low, high = (np.array([point[side] for point in points]) for side in range(4))
        axes.plot(coverages, values, linewidth=1.8, color=colour, linestyle=dash)
        axes.fill_between(coverages, low, high, alpha=0.18, color=colour, linewidth=0)
        keys.append(Key(name, _css(colour), dash))
    axes.axhline(allowed, color=_INK, linewidth=1.2, linestyle="dotted")
    axes.set_ylim(bottom=0)
    keys.append(Key("allowed", "currentColor", "dotted"))
    return Plot(heading, _svg(figure), keys)


def reliability_plot(heading: str, bins: Sequence[Bin]) -> Plot:
    """How many answers are right, by the probability that the model gave them; on the diagonal, as many as it says.

    Args:
        heading: of the plot.
        bins: the bins, from :func:`vislang.metrics.calibration.reliability`.
    """
    figure, axes = _axes("right answers (%)", "probability of the answer (%)")
    colour, _ = _style(0)
    lefts = np.array([100 * own.low for own in bins])
    values, low, high = (
        100 * np.array([getattr(own.right, side) for own in bins]) for side in ("value", "low", "high")
    )
    widths = np.array([100 * (own.high - own.low) for own in bins])
    axes.bar(lefts, values, widths, align="edge", color=colour, alpha=0.3, edgecolor=colour)
    middles = np.array([100 * own.probability for own in bins])
    axes.errorbar(
        middles, values, np.abs([values - low, high - values]), fmt="o", color=colour, markersize=4, capsize=3
    )
    axes.plot([0, 100], [0, 100], color=_INK, linewidth=1.2, linestyle="dotted")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    keys = [
        Key(
            "share of right answers, at the mean probability of each bin, with its 95 % interval", _css(colour), "solid"
        ),
        Key("calibrated", "currentColor", "dotted"),
    ]
    return Plot(heading, _svg(figure), keys)


def series_colour(number: int) -> str:
    """The colour in CSS of the series of this number."""
    return _css(_style(number)[0])


def _style(number: int) -> tuple[str, str]:
    """A colour that stands for one of the page's, and dashes."""
    return f"#0303{number % SERIES + 1:02x}", DASHES[number // SERIES % len(DASHES)]


def _css(colour: str) -> str:
    return f"var(--series-{int(colour[-2:], 16)})"


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _axes(label: str, across: str = "step") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.1), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.set_xlabel(across, fontsize=12, color=_INK)
    axes.set_ylabel(label, fontsize=12, color=_INK)
    axes.tick_params(labelsize=12, color=_LINE, labelcolor=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    # Each number is written in full: an offset in a corner is overlooked.
    axes.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]  # of a linear axis
    return figure, axes


def _svg(figure: Figure) -> str:
    # Groups are named alike in every plot, and a page has many; nothing refers to them.
    drawn = re.sub(r'<g id="[^"]*"', "<g", svg(figure)).replace(_INK, "currentColor").replace(_LINE, "var(--line)")
    return re.sub(r"#0303[0-9a-f]{2}", lambda found: _css(found[0]), drawn)
