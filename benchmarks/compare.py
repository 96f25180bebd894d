"""Two ways of doing the same, timed in one run: alternately, several rounds, the median of each."""

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
    """A figure.

    Attributes:
        name: what was compared.
        value: the figure, in ``unit``.
        unit: of the figure; ``ours / peer`` for a ratio of times.
        goal: what it should be, as text, such as ``<= 0.5``.
        met: whether it is.
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


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], at_most: float, rounds: int, warmup: int = 2
) -> Row:
    """Time both in turn and compare the medians; ``at_most`` is the largest ratio of ours to the peer's wanted."""
    for _ in range(warmup):
        ours()
        peer()
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        for which, run in (("ours", ours), ("peer", peer)):
            started = time.perf_counter()
            run()
            times[which].append(time.perf_counter() - started)
    ours_s, peer_s = statistics.median(times["ours"]), statistics.median(times["peer"])
    ratio = ours_s / peer_s
    return Row(name, ratio, "ours / peer", f"<= {at_most}", ratio <= at_most, ours_s, peer_s, rounds)


def arguments(description: str) -> argparse.Namespace:
    """``--quick`` and ``--json FILE``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    return parser.parse_args()


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows, as ``--json`` writes them, as a table for docs/results/benchmarks.md."""
    lines = ["| | measured | goal | ours | peer |", "|---|---|---|---|---|"]
    for row in rows:
        seconds = [f"{1000 * row[side]:.0f} ms" if row[side] else "" for side in ("ours_s", "peer_s")]
        lines.append(f"| {row['name']} | {row['value']:.2f} {row['unit']} | {row['goal']} | {' | '.join(seconds)} |")
    return "\n".join(lines) + "\n"


def report(rows: Sequence[Row], path: Path | None) -> None:
    """Print the rows as a table, and write them where asked."""
    table = Table(Column("", no_wrap=True), Column("value", no_wrap=True), "goal", "met", "ours", "peer", "rounds")
    for row in rows:
        seconds = [f"{1000 * s:.0f} ms" for s in (row.ours_s, row.peer_s)]
        met = "yes" if row.met else "[red]no[/red]"
        table.add_row(row.name, f"{row.value:.3f} {row.unit}", row.goal, met, *seconds, str(row.rounds))
    # Where output is no terminal, columns would be squeezed away.
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
