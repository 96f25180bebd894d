"""The table of a data2vec study: accuracy of each representation at the end of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vislang.studies.line import Line, mean_line


def last_lines(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, dict[str, Line]]:
    """Lines for the last step of each run, by probe and representation; ``kind`` is linear or neighbours."""
    found: dict[str, dict[str, dict[int | None, dict[str, Any]]]] = {}
    for row in rows:
        if row["kind"] == kind:
            by_seed = found.setdefault(row["probe"], {}).setdefault(row["representation"], {})
            known = by_seed.get(row.get("seed"))
            if known is None or row["step"] > known["step"]:
                by_seed[row.get("seed")] = row
    return {
        probe: {name: mean_line(list(by_seed.values()), "accuracy") for name, by_seed in own.items()}
        for probe, own in found.items()
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each probe, with the best representation first."""
    linear, neighbours = last_lines(rows, "linear"), last_lines(rows, "neighbours")
    parts = []
    for probe, own in linear.items():
        n = next(iter(own.values())).mean.n
        lines = [f"| {probe}, {n:,} test examples | linear probe | nearest neighbours |", "|---|---|---|"]
        for name, line in sorted(own.items(), key=lambda pair: -pair[1].mean.value):
            lines.append(f"| {name} | {line} | {neighbours.get(probe, {}).get(name, '')} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def compared(shared: Sequence[dict[str, Any]], separate: Sequence[dict[str, Any]], name: str = "v2") -> str:
    """Linear probes of one encoder for all modalities and of one encoder for each."""
    ours, theirs = last_lines(shared, "linear"), last_lines(separate, "linear")
    lines = ["| linear probe | one encoder for all | its own encoder | one for all, before training |"]
    lines.append("|---|---|---|---|")
    for probe, own in ours.items():
        lines.append(f"| {probe} | {own[name]} | {theirs[probe][name]} | {own[f'{name}, before training']} |")
    return "\n".join(lines) + "\n"
