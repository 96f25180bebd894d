"""``vislang plan``: how large a model is, part by part, before anything of it is in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.table import Table

from vislang.commands.options import positional
from vislang.console import console
from vislang.metrics.figure import SCHEMA


@dataclass(frozen=True)
class Plan:
    """Count the parameters of one of the paper's Flamingos, part by part, beside the paper's own counts.

    Attributes:
        preset: flamingo-3b, flamingo-9b or flamingo-80b
        json: one JSON object on standard output
    """

    preset: str = positional()
    json: bool = False

    def run(self) -> int:
        """Print the counts; returns 0."""
        from vislang.models.flamingo.presets import nearest_reading, parts, preset, readings

        chosen = preset(self.preset)
        found = parts(chosen)
        possible = dict(readings(chosen))
        trained = sum(part.built or 0 for part in found if part.trained)
        frozen = sum(part.stated for part in found if not part.trained)
        if self.json:
            rows = [{"part": p.name, "trained": p.trained, "built": p.built, "paper": p.stated} for p in found]
            values = {"preset": self.preset, "parts": rows, "trained": trained, "frozen": frozen}
            values |= {"total": trained + frozen, "paper_total": chosen.stated.total}
            values |= {
                "gated_blocks_by_reading_of_heads": possible,
                "nearest_reading": nearest_reading(chosen),
            }
            print(json.dumps({"schema": SCHEMA, **values}))
            return 0
        table = Table(title=f"{self.preset}: {chosen.gated_blocks} gated blocks, one every {chosen.every} layers")
        table.title_justify = "left"
        table.add_column("part")
        table.add_column("")
        table.add_column("built from the stated shape", justify="right")
        table.add_column("the paper's count", justify="right")
        for part in found:
            built = "(never released)" if part.built is None else f"{part.built:,}"
            table.add_row(part.name, "trains" if part.trained else "frozen", built, _rounded(part.stated))
        whole = _rounded(trained + frozen)
        table.add_row("[bold]total[/bold]", "", f"[bold]{whole}[/bold]", _rounded(chosen.stated.total))
        console.print(table)
        console.print("Gated blocks, by what the stated number of heads may mean:")
        for reading, count in possible.items():
            mark = ", the nearest" if reading == nearest_reading(chosen) else ""
            console.print(f"  {reading}: {count:,} ({count / chosen.stated.gated:.2f} of the paper's{mark})")
        return 0


def _rounded(count: float) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"
