"""``vislang plan``: what a recipe takes, before anything of it is in memory."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vislang.commands.options import overrides, positional
from vislang.console import console
from vislang.errors import UserError
from vislang.metrics.figure import SCHEMA

if TYPE_CHECKING:
    from vislang.runs.plan import Cost
    from vislang.runs.plan import Plan as Found


@dataclass(frozen=True)
class Plan:
    """Say what a recipe takes before it is trained: parameters, memory, operations, time, and what fits.

    Attributes:
        recipe: YAML file, or one of the paper's models: flamingo-3b, flamingo-9b, flamingo-80b
        devices: that share the work
        memory: of each device, in GiB; without it, that of this machine
        rate: TFLOPS that a device reaches in training; without it, this machine's rate of matrix products for one device
        price: of a device for an hour, in any currency
        json: one JSON object on standard output
    """

    recipe: Path = positional()
    devices: int = 1
    memory: float | None = None
    rate: float | None = None
    price: float | None = None
    json: bool = False
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Print the plan; returns 0, or 1 where no setting fits."""
        for name in ("devices", "memory", "rate", "price"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"--{name} {value}: must be above 0.")
        from vislang.models.flamingo.presets import PAPER
        from vislang.recipe import read_recipe
        from vislang.runs.plan import cost, plan
        from vislang.train.machine import matrix_rate, memory
        from vislang.train.placement import GIB

        recipe, _ = read_recipe(self.recipe, self.overrides)
        room = memory() if self.memory is None else self.memory * GIB
        found = plan(recipe, self.devices, room)
        rate = None if self.rate is None else self.rate * 1e12
        if rate is None and self.devices == 1:
            rate = matrix_rate(found.dtype)
        spent = None if rate is None else cost(found, rate, self.price)
        paper = PAPER.get(str(self.recipe), {})
        if self.json:
            print(json.dumps({"schema": SCHEMA, **self._values(found, spent, paper, room / GIB)}))
        else:
            self._show(found, spent, paper, room / GIB)
        return 0 if found.chosen else 1

    def _values(self, found: Found, spent: Cost | None, paper: dict[str, float], room: float) -> dict[str, Any]:
        parts = [{**dataclasses.asdict(part), "paper": paper.get(part.name)} for part in found.parts]
        return {
            "recipe": str(self.recipe),
            "devices": self.devices,
            "memory_gib": room,
            "dtype": _name(found.dtype),
            "parts": parts,
            "parameters": sum(part.count for part in found.parts),
            "trained": sum(part.trained for part in found.parts),
            "paper_parameters": paper.get("total"),
            "step": {"examples": found.examples, **found.contents, "flops": found.operations},
            "steps": found.steps,
            "settings": [
                {
                    **dataclasses.asdict(placement),
                    "bytes": placement.memory and placement.memory.total,
                }
                for placement in found.placements
            ],
            "chosen": found.chosen and found.chosen.parallel,
            "cost": spent and dataclasses.asdict(spent),
        }

    def _show(self, found: Found, spent: Cost | None, paper: dict[str, float], room: float) -> None:
        several = "a device" if self.devices == 1 else f"{self.devices:,} devices"
        console.print(f"{self.recipe} on {several} of {room:,.0f} GiB, arithmetic in {_name(found.dtype)}\n")
        console.print(_parts_table(found, paper))
        console.print()
        console.print(_settings_table(found))
        for placement in found.placements:
            if not placement.fits:
                console.print(f"{placement.parallel} does not fit: {placement.why}", markup=False)
        held = ", ".join(f"{count:,} {kind}" for kind, count in found.contents.items())
        console.print(f"\na step   {found.examples:,} examples: {held}; {_operations(found.operations)}", markup=False)
        if spent is None:
            console.print("time     give --rate, the TFLOPS that a device reaches in training")
            return
        source = "" if self.rate else ", the rate of matrix products here"
        console.print(
            f"time     {_duration(spent.step_seconds / 3600)} a step, {_duration(spent.hours)} for {found.steps:,} steps, at "
            f"{spent.rate / 1e12:,.3g} TFLOPS a device{source}"
        )
        price = "" if spent.price is None else f", {spent.price:,.2f} at {self.price:,.2f} an hour"
        console.print(f"cost     {spent.device_hours:,.1f} device hours{price}")


def _parts_table(found: Found, paper: dict[str, float]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("parameters")
    table.add_column("count", justify="right")
    table.add_column("")
    if paper:
        table.add_column("the paper's", justify="right")
        table.add_column("ratio", justify="right")
    total = sum(part.count for part in found.parts)
    rows = [(part.name, part.count, part.trained) for part in found.parts]
    for name, count, trained in [*rows, ("total", total, sum(part.trained for part in found.parts))]:
        state = "frozen" if not trained else "trains" if trained == count else f"{trained:,} train"
        stated = paper.get(name)
        compared = ["", ""] if stated is None else [_rounded(stated), f"{count / stated:.2f}"]
        table.add_row(name, f"{count:,}", state, *(compared if paper else []), style="bold" if name == "total" else "")
    return table


def _settings_table(found: Found) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("GiB a device")
    for name in ("devices", "weights", "gradients", "optimizer", "activations", "in all"):
        table.add_column(name, justify="right")
    table.add_column("fits")
    for placement in found.placements:
        memory = placement.memory
        sizes = ["-"] * 5
        if memory is not None:
            kinds = (memory.weights + memory.copies, memory.gradients, memory.optimizer, memory.activations)
            sizes = [f"{size / 2**30:,.2f}" for size in (*kinds, memory.total)]
        mark = "yes, take this" if placement is found.chosen else "yes" if placement.fits else "no"
        style = "bold" if placement is found.chosen else ""
        table.add_row(placement.parallel, f"{placement.devices:,}", *sizes, mark, style=style)
    return table


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _rounded(count: float) -> str:
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def _operations(count: float) -> str:
    unit, size = next((unit, size) for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 0)) if count >= size)
    return f"{count / (size or 1e9):,.3g} {unit}" if count < 1e18 else f"{count / 1e15:,.0f} PFLOP"


def _duration(hours: float) -> str:
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if hours < 2:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
