"""Figures of what models compute: pictures with masks, maps of weights, curves; as SVG files for a page.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which readers with any kind of colour vision tell
apart; curves differ in their dashes, too. A figure is as wide as a page, so that its type has about the size of the
page's. Text stays text, and the same values give the same file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image as Pillow

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""Colours of curves, in turn. Okabe and Ito's yellow is left out: it is too light for a line on white."""

DASHES = ("solid", "dashed", "dotted", "dashdot", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Of curves, in turn."""

INK, FRAME, HIDDEN = "#1A1A1A", "#8C8C8C", "#767676"
"""Of text, of lines around things, and of masked patches."""

LINE = 225
"""Grey of the lines between patches."""

WIDTH = 8.4
"""Of a figure, in inches of 96 pixels: the width of a page."""

TYPE, TITLE = 10.5, 11.0
"""Sizes of type in points; a page has 12."""


def panels(
    columns: int, rows: int = 1, height: float = 2.6, widths: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of the width of a page, and its axes, row by row.

    Args:
        columns, rows: how many axes are side by side, and on top of each other.
        height: of the figure, in inches.
        widths: relative widths of the columns; by default all are equal.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, width_ratios=widths).flat)


def masked(picture: Pillow.Image, mask: Bool[np.ndarray, "rows columns"]) -> Pillow.Image:
    """A picture divided into patches by thin lines, with masked patches in grey.

    Args:
        picture: a picture whose sides are multiples of the number of rows and columns.
        mask: True where a patch is masked.
    """
    rows, columns = np.asarray(mask).shape
    pixels = np.asarray(picture.convert("RGB")).copy()
    down, across = pixels.shape[0] // rows, pixels.shape[1] // columns
    pixels[np.kron(np.asarray(mask), np.ones((down, across), dtype=bool))] = _bytes(HIDDEN)
    pixels[down::down], pixels[:, across::across] = LINE, LINE
    return Pillow.fromarray(pixels)


def draw_picture(axes: Axes, picture: Pillow.Image, title: str = "") -> None:
    """Draw a picture under its title, in a thin frame."""
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(FRAME)
    axes.set_title(title, fontsize=TITLE, color=INK)


def draw_weights(
    axes: Axes,
    weights: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    greatest: float | None = None,
    colour: str = BLUE,
    upright: bool = False,
) -> None:
    """Draw a matrix of weights: a cell is white at 0, and has full colour at the greatest weight.

    Args:
        axes: where to draw.
        weights: not negative.
        rows, columns: names.
        title: above the matrix.
        greatest: weight of full colour; None takes the greatest of the matrix.
        colour: full colour.
        upright: write the names of columns from bottom to top, where they need room.
    """
    shades = LinearSegmentedColormap.from_list("weights", ["white", colour])
    # Not resampled: one pixel a cell keeps the file small, and the cells sharp.
    axes.imshow(weights, cmap=shades, vmin=0, vmax=greatest, aspect="auto", interpolation="none")
    axes.set_xticks(range(len(columns)), columns, rotation=90 if upright else 0, fontsize=TYPE, color=INK)
    axes.set_yticks(range(len(rows)), rows, fontsize=TYPE, color=INK)
    for edge in range(1, len(columns)):
        axes.axvline(edge - 0.5, color="#D9D9D9", linewidth=0.6)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color="#D9D9D9", linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines[:].set_color(FRAME)
    axes.set_title(title, fontsize=TITLE, color=INK)


def draw_curves(
    axes: Axes,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    title: str = "",
    logarithmic: bool = False,
    key: bool = True,
) -> None:
    """Draw curves, each in a colour and dashes of its own, with a key if there are several.

    Args:
        axes: where to draw.
        curves: horizontal and vertical values of the points of each, by name.
        across, up: labels of the axes, with units.
        title: above the axes.
        logarithmic: whether the vertical axis is logarithmic.
        key: whether to name the curves, if there are several.
    """
    for number, (name, (steps, values)) in enumerate(curves.items()):
        colour, dashes = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
        axes.plot(steps, values, color=colour, linestyle=dashes, linewidth=2, label=name)
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel(across, fontsize=TYPE, color=INK)
    axes.set_ylabel(up, fontsize=TYPE, color=INK)
    axes.tick_params(labelsize=TYPE, color=FRAME, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.grid(color="#E0E0E0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=TITLE, color=INK)
    if key and len(curves) > 1:
        axes.legend(frameon=False, fontsize=TYPE, handlelength=3)


def svg(figure: Figure) -> str:
    """A figure as SVG. The same figure gives the same text: it has a fixed salt, and says neither when it was drawn nor
    by what."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "vislang", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata=nothing, dpi=144)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def write(figure: Figure, path: Path | str) -> None:
    """Write a figure as an SVG file."""
    Path(path).write_text(svg(figure), encoding="utf-8")


def _bytes(colour: str) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in to_rgb(colour))
