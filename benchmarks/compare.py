"""Comparison of two programs in one run: timed alternately for several rounds, with the median of each."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table


@dataclass(frozen=True)
class Row:
    """A row of the results.

    Attributes:
        name: what was compared.
        value: the result, in ``unit``.
        unit: unit of the result; ``ours / peer`` for a ratio of times.
        goal: the goal as text, such as ``<= 0.5``.
        met: whether the goal is met.
        ours_s, peer_s: median seconds of each.
        rounds: how often each was timed.
    """

    name: str
    value: float
    unit: str
    goal: str
    met: bool
    ours_s: float
    peer_s: float
    rounds: int


def medians(
    runs: Sequence[Callable[[], object]], rounds: int, warmup: int = 2, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each of some programs, which are timed in turn for several rounds.

    Args:
        runs: the programs.
        rounds: how often each is timed.
        warmup: how often each runs before that.
        clock: ``time.process_time`` for processor time, on which other programs of the machine have less effect.
    """
    times: list[list[float]] = [[] for _ in runs]
    for number in range(warmup + rounds):
        for own, run in zip(times, runs, strict=True):
            started = clock()
            run()
            if number >= warmup:
                own.append(clock() - started)
    return [statistics.median(own) for own in times]


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], at_most: float, rounds: int, warmup: int = 2
) -> Row:
    """Time both in turn and compare the medians; the goal is a ratio of at most ``at_most``."""
    ours_s, peer_s = medians([ours, peer], rounds, warmup)
    ratio = ours_s / peer_s
    return Row(name, ratio, "ours / peer", f"<= {at_most}", ratio <= at_most, ours_s, peer_s, rounds)


def arguments(description: str) -> argparse.Namespace:
    """Parse ``--quick`` and ``--json FILE``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few rounds, to check that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    return parser.parse_args()


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for docs/results/benchmarks.md of rows from a file that ``--json`` wrote."""
    lines = ["| | measured | goal | ours | peer |", "|---|---|---|---|---|"]
    for row in rows:
        seconds = [f"{1000 * row[side]:.0f} ms" if row[side] else "" for side in ("ours_s", "peer_s")]
        lines.append(f"| {row['name']} | {row['value']:.2f} {row['unit']} | {row['goal']} | {' | '.join(seconds)} |")
    return "\n".join(lines) + "\n"


def report(rows: Sequence[Row], path: Path | None) -> None:
    """Print the rows as a table, and write them to ``path`` if it is given."""
    table = Table(Column("", no_wrap=True), Column("value", no_wrap=True), "goal", "met", "ours", "peer", "rounds")
    for row in rows:
        seconds = [f"{1000 * s:.0f} ms" for s in (row.ours_s, row.peer_s)]
        met = "yes" if row.met else "[red]no[/red]"
        table.add_row(row.name, f"{row.value:.3f} {row.unit}", row.goal, met, *seconds, str(row.rounds))
    # In a narrow output, columns would be dropped.
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
