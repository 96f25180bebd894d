"""The figure of a data2vec study: accuracy over minutes of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLOURS = {"v1": "#b3591e", "v2": "#1f4e79"}


def draw(rows: Sequence[dict[str, Any]], probe: str, path: Path) -> None:
    """Draw the accuracy of linear probes over time, one line for each run; baselines are dashed."""
    here = [row for row in rows if row["probe"] == probe and row["kind"] == "linear"]
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for row in here:
        if "seed" not in row:
            axes.axhline(_percent(row), linewidth=1, linestyle="--", color="#888")
            axes.annotate(
                row["representation"],
                (1.0, _percent(row)),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 2),
                textcoords="offset points",
                fontsize=8,
                ha="right",
                color="#555",
            )
    for generation, colour in COLOURS.items():
        own = [row for row in here if row["representation"].startswith(generation)]
        for number, seed in enumerate(sorted({row["seed"] for row in own})):
            points = sorted((row["seconds"] / 60, _percent(row)) for row in own if row["seed"] == seed)
            label = None if number else generation
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.3, color=colour, label=label)
    axes.set_title(probe, fontsize=10, loc="left")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("linear probe, accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    # Above the axes, because the lines cover most of the area inside.
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=130)


def _percent(row: dict[str, Any]) -> float:
    return 100 * row["figures"]["accuracy"]["value"]
