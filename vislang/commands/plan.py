"""``vislang plan``: what a recipe needs, before anything of it is in memory."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
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
    from vislang.train.placement import Placement

EXAMPLE_RATE = 100.0
"""TFLOPS of a device, for the time of several devices whose rate is not known."""

INDENT = 9
"""Columns of the names in front of lines."""


@dataclass(frozen=True)
class Plan:
    """Estimate what a recipe needs: parameters, memory, operations, time and cost, and which parallel setting fits.

    Attributes:
        recipe: YAML file, or a preset: flamingo-3b, flamingo-9b, flamingo-80b, data2vec-base or -large (images),
            data2vec-text-base or -large, data2vec-speech-base or -large
        devices: number of devices
        memory: memory of each device in GiB (default: that of this machine)
        rate: TFLOPS that each device reaches in training (default for one device: the matrix rate of this machine)
        bandwidth: GB/s that each device receives from others
        price: price of a device for an hour, in any currency
        json: print one JSON object
    """

    recipe: Path = positional()
    devices: int = 1
    memory: float | None = None
    rate: float | None = None
    bandwidth: float | None = None
    price: float | None = None
    json: bool = False
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Print the plan; returns 0, or 1 if no setting fits.

        Raises:
            UserError: an option or the recipe cannot be used.
        """
        for name in ("devices", "memory", "rate", "bandwidth", "price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"--{name} is {value}; it must be {'finite' if value > 0 else 'above 0'}.")
        from vislang.recipe import read_recipe
        from vislang.runs.plan import cost, plan
        from vislang.train.device import device_of, memory_of
        from vislang.train.placement import GIB
        from vislang.train.speed import matrix_rate

        recipe, _ = read_recipe(self.recipe, self.overrides)
        device = device_of(recipe.train.device)
        room = memory_of(device) / GIB if self.memory is None else self.memory
        found = plan(recipe, self.devices, room * GIB)
        rate = EXAMPLE_RATE * 1e12 if self.rate is None else self.rate * 1e12
        if self.rate is None and self.devices == 1:
            rate = matrix_rate(device, found.dtype)
        spent = cost(found, rate, self.price, None if self.bandwidth is None else self.bandwidth * 1e9)
        if self.json:
            print(json.dumps({"schema": SCHEMA, **self._values(found, spent, room)}))
        else:
            self._show(found, spent, room)
        return 0 if found.chosen else 1

    def _values(self, found: Found, spent: Cost, room: float) -> dict[str, Any]:
        from vislang.models.flamingo.presets import PAPER

        paper = PAPER.get(str(self.recipe), {})
        return {
            "recipe": str(self.recipe),
            "devices": self.devices,
            "memory_gib": room,
            "dtype": _name(found.dtype),
            "parts": [{**dataclasses.asdict(part), "paper": paper.get(part.name)} for part in found.parts],
            "parameters": sum(part.count for part in found.parts),
            "trained": sum(part.trained for part in found.parts),
            "paper_parameters": paper.get("total"),
            "step": {"examples": found.examples, **found.contents, "flops": found.operations},
            "settings": [
                {**dataclasses.asdict(placement), "bytes": placement.memory and placement.memory.total}
                for placement in found.placements
            ],
            "chosen": found.chosen and found.chosen.parallel,
            "cost": dataclasses.asdict(spent),
        }

    def _show(self, found: Found, spent: Cost, room: float) -> None:
        several = "one device" if self.devices == 1 else f"{self.devices:,} devices"
        # One device has no use for the other settings.
        shown = [placement for placement in found.placements if self.devices > 1 or placement.parallel == "none"]
        console.print(
            f"{self.recipe} on {several} of {room:,.4g} GiB, computing in {_name(found.dtype)}\n", markup=False
        )
        console.print(_parts_table(found, str(self.recipe)))
        console.print("\nMemory per device in GiB")
        console.print(_settings_table(shown, found.chosen))
        console.print()
        for placement in shown:
            if not placement.fits:
                _line(placement.parallel, f"does not fit: {placement.why}")
        chosen = found.chosen
        if chosen is not None:
            note = "fits" if self.devices == 1 else f"fits; take --train.parallel {chosen.parallel}"
            if chosen.host:
                note += (
                    f". In host memory, each process keeps the whole model ({chosen.host / 2**30:,.1f} GiB) to start "
                    "from, to evaluate and to save"
                )
            _line(chosen.parallel, note)
        console.print()
        contents = {"examples": found.examples, **found.contents}
        held = ", ".join(f"{count:,} {kind}" for kind, count in contents.items())
        _line("step", f"{held}; {_operations(found.operations)}")
        held = ", ".join(f"{_rounded(count * spent.steps)} {kind}" for kind, count in contents.items())
        _line("run", f"{spent.steps:,} steps: {held}; {found.operations * spent.steps:.2e} FLOP")
        _line("time", self._time(spent))
        if chosen is not None and chosen.traffic:
            needed = chosen.traffic / spent.compute_seconds
            network = f"each device receives {chosen.traffic / 1e9:,.1f} GB per step"
            if spent.network_seconds is None:
                network += f"; with less than {needed / 1e9:,.3g} GB/s (--bandwidth) this takes longer than computing"
            else:
                computing, waiting = _duration(spent.compute_seconds), _duration(spent.network_seconds)
                network += f": {waiting} at {self.bandwidth:,.4g} GB/s, while it computes for {computing}"
            _line("network", network)
        price = "" if spent.price is None else f", {spent.price:,.2f} at {self.price:,.2f} per hour"
        _line("cost", f"{spent.device_hours:,.1f} device hours{price}")
        self._show_paper_run(found, spent)

    def _time(self, spent: Cost) -> str:
        whole, step = _duration(3600 * spent.hours), _duration(spent.step_seconds)
        rate = f"{spent.rate / 1e12:,.3g} TFLOPS" if spent.rate >= 1e11 else f"{spent.rate / 1e9:,.3g} GFLOPS"
        rate += " per device"
        if self.rate is None:
            rate = f"an assumed {rate} (set --rate)" if self.devices > 1 else f"{rate}, the matrix rate measured here"
        return f"{'at least ' if self.rate is None and self.devices == 1 else ''}{whole}, {step} per step, at {rate}"

    def _show_paper_run(self, found: Found, spent: Cost) -> None:
        from vislang.models.flamingo.presets import PAPER_RUNS

        run = PAPER_RUNS.get(str(self.recipe))
        if run is None:
            return
        rate = found.operations * spent.steps / (run.devices * run.days * 86400)
        _line(
            "paper",
            f"{run.days} days on {run.devices:,} {run.device}; for the operations above that is "
            f"{rate / 1e12:.0f} TFLOPS per device, {rate / run.peak:.0%} of its peak of {run.peak / 1e12:.0f}",
        )


def _line(name: str, text: str) -> None:
    """Print a text with a name in front; the lines that follow are indented."""
    lines = textwrap.wrap(text, max(40, console.width - INDENT), break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        console.print(f"{'' if number else name:<{INDENT}}{line}", markup=False, soft_wrap=True)


def _parts_table(found: Found, recipe: str) -> Table:
    from vislang.models.flamingo.presets import PAPER

    paper = PAPER.get(recipe, {})
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    for name in ("parameters", "trained"):
        table.add_column(name, justify="right")
    if paper:
        table.add_column("in the paper", justify="right")
        table.add_column("ratio", justify="right")
    rows = [(part.name, part.count, part.trained) for part in found.parts]
    total = ("total", sum(part.count for part in found.parts), sum(part.trained for part in found.parts))
    for name, count, trained in [*rows, total]:
        stated = paper.get(name)
        compared = ["", ""] if stated is None else [_rounded(stated), f"{count / stated:.2f}"]
        state = "frozen" if not trained else "all" if trained == count else f"{trained:,}"
        style = "bold" if name == "total" else ""
        table.add_row(name, f"{count:,}", state, *(compared if paper else []), style=style)
    return table


def _settings_table(placements: Sequence[Placement], chosen: Placement | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("parallel")
    for name in ("devices", "weights", "gradients", "optimizer", "activations", "total", "fits"):
        table.add_column(name, justify="right")
    for placement in placements:
        memory = placement.memory
        sizes = ["-"] * 5
        if memory is not None:
            kinds = (memory.weights + memory.copies, memory.gradients, memory.optimizer, memory.activations)
            sizes = [f"{size / 2**30:,.2f}" for size in (*kinds, memory.total)]
        style = "bold" if placement is chosen else ""
        fits = "yes" if placement.fits else "no"
        table.add_row(placement.parallel, f"{placement.devices:,}", *sizes, fits, style=style)
    return table


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _rounded(count: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:,.0f}"


def _operations(count: float) -> str:
    unit, size = ("PFLOP", 1e15) if count >= 1e15 else ("TFLOP", 1e12) if count >= 1e12 else ("GFLOP", 1e9)
    number = count / size
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:,.3g} days" if seconds < 86400 * 1000 else f"{seconds / (365 * 86400):,.3g} years"
