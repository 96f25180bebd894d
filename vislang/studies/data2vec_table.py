"""A data2vec study as a table: what each representation knows at the end of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vislang.studies.line import Line, mean_line


def last_lines(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, dict[str, Line]]:
    """By probe, then by representation: figures of the last step of each run; ``kind`` is linear or neighbours."""
    found: dict[str, dict[str, dict[int | None, dict[str, Any]]]] = {}
    for row in rows:
        if row["kind"] == kind:
            by_seed = found.setdefault(row["probe"], {}).setdefault(row["who"], {})
            known = by_seed.get(row.get("seed"))
            if known is None or row["step"] > known["step"]:
                by_seed[row.get("seed")] = row
    return {
        probe: {who: _line(list(by_seed.values())) for who, by_seed in whos.items()} for probe, whos in found.items()
    }


def _line(rows: Sequence[dict[str, Any]]) -> Line:
    return mean_line([row["accuracy"] for row in rows], rows[0]["items"])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One table a probe, the best first."""
    linear, neighbours = last_lines(rows, "linear"), last_lines(rows, "neighbours")
    parts = []
    for probe, whos in linear.items():
        items = next(iter(whos.values())).accuracy.n
        lines = [f"| {probe}, {items:,} test items | linear probe | nearest neighbours |", "|---|---|---|"]
        for who, line in sorted(whos.items(), key=lambda pair: -pair[1].accuracy.value):
            other = neighbours.get(probe, {}).get(who)
            lines.append(f"| {who} | {line} | {other or ''} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def compared(shared: Sequence[dict[str, Any]], separate: Sequence[dict[str, Any]], who: str = "v2") -> str:
    """One encoder for all modalities beside encoders of their own: the linear probe of each, by probe."""
    ours, theirs = last_lines(shared, "linear"), last_lines(separate, "linear")
    lines = ["| linear probe | one encoder for all | an encoder of its own | one for all, before training |"]
    lines.append("|---|---|---|---|")
    for probe, whos in ours.items():
        lines.append(f"| {probe} | {whos[who]} | {theirs[probe][who]} | {whos[f'{who}, before training']} |")
    return "\n".join(lines) + "\n"
