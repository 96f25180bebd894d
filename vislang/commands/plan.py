"""``vislang plan``: how large a model is, part by part, before anything of it is in memory."""

from __future__ import annotations

import json

from rich.table import Table

from vislang.console import console
from vislang.models.flamingo.presets import nearest_reading, parts, preset, readings


def plan(name: str, as_json: bool) -> int:
    """Print parameters by part beside the paper's; returns 0.

    Raises:
        UserError: there is no preset of this name.
    """
    chosen = preset(name)
    found = parts(chosen)
    possible = dict(readings(chosen))
    trained = sum(part.built or 0 for part in found if part.trained)
    frozen = sum(part.stated for part in found if not part.trained)
    if as_json:
        rows = [
            {"part": part.name, "trained": part.trained, "built": part.built, "paper": part.stated} for part in found
        ]
        print(
            json.dumps(
                {
                    "preset": name,
                    "parts": rows,
                    "trained": trained,
                    "frozen": frozen,
                    "total": trained + frozen,
                    "paper_total": chosen.stated.total,
                    "gated_blocks_by_reading_of_heads": possible,
                    "nearest_reading": nearest_reading(chosen),
                }
            )
        )
        return 0
    table = Table(title=f"{name}: {chosen.gated_blocks} gated blocks, one every {chosen.every} layers")
    table.title_justify = "left"
    table.add_column("part")
    table.add_column("")
    table.add_column("built from the stated shape", justify="right")
    table.add_column("the paper's count", justify="right")
    for part in found:
        built = "(never released)" if part.built is None else f"{part.built:,}"
        table.add_row(part.name, "trains" if part.trained else "frozen", built, _rounded(part.stated))
    table.add_row("[bold]total[/bold]", "", f"[bold]{_rounded(trained + frozen)}[/bold]", _rounded(chosen.stated.total))
    console.print(table)
    console.print("Gated blocks, by what the stated number of heads may mean:")
    for reading, count in possible.items():
        mark = ", the nearest" if reading == nearest_reading(chosen) else ""
        console.print(f"  {reading}: {count:,} ({count / chosen.stated.gated:.2f} of the paper's{mark})")
    return 0


def _rounded(count: float) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"
