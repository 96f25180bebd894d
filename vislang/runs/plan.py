"""What a recipe needs: parameters, operations and memory, for any number of devices.

Steps run on fake tensors (:mod:`vislang.nn.fake`), so nothing is computed and no large model is in memory. Their
batches are those of the recipe's own data, or, for the paper's Flamingos, as long as the paper's sequences
(:mod:`vislang.runs.loads`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch

from vislang.capabilities import Trainable
from vislang.nn.fake import FakeFloats
from vislang.recipe import Recipe
from vislang.runs.loads import LoadOfData, LoadOfPaper, Loads, by_paper
from vislang.train.placement import Placement, placements


@dataclass(frozen=True)
class Part:
    """A part of the model: its number of parameters, and how many of them are trained."""

    name: str
    count: int
    trained: int


@dataclass(frozen=True)
class Plan:
    """What a recipe needs.

    Attributes:
        parts: of the model.
        dtype: number type of the computation.
        steps: number of steps of the run; 0 if its ``minutes`` decide it.
        minutes: time budget of the run; 0 if it has none.
        examples: in a step, over all devices.
        contents: of a step, by kind: ``tokens``, ``images`` and so on.
        operations: floating-point operations of a step, over all devices.
        placements: all parallel settings.
    """

    parts: list[Part]
    dtype: torch.dtype
    steps: int
    minutes: float
    examples: int
    contents: dict[str, int]
    operations: float
    placements: list[Placement]

    @property
    def chosen(self) -> Placement | None:
        """The recommended setting: the simplest that fits and uses all devices, or else one device; None if no setting
        fits."""
        fitting = [placement for placement in self.placements if placement.fits]
        return max(fitting, key=lambda placement: placement.devices, default=None)


@dataclass(frozen=True)
class Cost:
    """Time and money of a run.

    Attributes:
        rate: operations per second of each device.
        steps: number of steps.
        compute_seconds: time of a step's operations.
        network_seconds: time in which a device receives what the others send in a step; None if the bandwidth is
            unknown.
        step_seconds: time of a step: the longer of both, since the network works while the device computes.
        hours: time of the run.
        device_hours: of all devices together.
        price: of all device hours, in the currency of the hourly price; None without one.
    """

    rate: float
    steps: int
    compute_seconds: float
    network_seconds: float | None
    step_seconds: float
    hours: float
    device_hours: float
    price: float | None


def plan(recipe: Recipe, devices: int, memory: float) -> Plan:
    """Work out what a recipe needs.

    Args:
        recipe: the recipe.
        devices: number of devices.
        memory: of each device, in bytes.

    Raises:
        DataError: the recipe's data are not here.
        UserError: a setting does not fit the model or the data.
    """
    with FakeFloats() as fakes:
        loads: Loads = LoadOfPaper(recipe, fakes) if by_paper(recipe) else LoadOfData(recipe, fakes)
        model, config = loads.model, recipe.train
        share = loads.of(devices)
        in_turn = config.mixing == "round-robin"
        shares = [math.ceil(size / devices) for size in loads.batch_sizes]
        of_streams = [min(config.accumulate, share) for share in shares]
        passes = max(of_streams) if in_turn else sum(of_streams)
        found = placements(model, config, share.footprint, lambda: loads.of(1).footprint, devices, memory, passes)
    # Streams that take turns share the steps.
    turns = len(shares) if in_turn else 1
    scales = [size / own / turns for size, own in zip(loads.batch_sizes, shares, strict=True)]
    contents: defaultdict[str, float] = defaultdict(float)
    for own, scale in zip(share.contents, scales, strict=True):
        for kind, value in own.items():
            contents[kind] += value * scale
    return Plan(
        parts_of(model),
        getattr(model, "dtype", torch.float32),
        (config.steps or 0) if config.minutes else config.number_of_steps,
        config.minutes,
        round(sum(loads.batch_sizes) / turns),
        {kind: round(value) for kind, value in contents.items()},
        sum(count * scale for count, scale in zip(share.footprint.operations, scales, strict=True)),
        found,
    )


def cost(found: Plan, rate: float, price: float | None = None, bandwidth: float | None = None) -> Cost:
    """Time and money of the steps of a run, without evaluation and checkpoints.

    Args:
        found: the plan. If no setting fits, the time is that of one device.
        rate: operations per second of each device.
        price: of a device for an hour.
        bandwidth: bytes per second that each device receives from others; None leaves the network out.
    """
    chosen = found.chosen
    devices, traffic = (chosen.devices, chosen.traffic) if chosen else (1, 0)
    computing = found.operations / rate / devices
    network = None if bandwidth is None else traffic / bandwidth
    step_seconds = max(computing, network or 0.0)
    within = int(60 * found.minutes / step_seconds) if found.minutes else found.steps
    steps = min(within, found.steps or within)
    hours = steps * step_seconds / 3600
    price = None if price is None else hours * devices * price
    return Cost(rate, steps, computing, network, step_seconds, hours, hours * devices, price)


def parts_of(model: Trainable) -> list[Part]:
    """The parts. A parameter of two parts counts in the first one, and a parameter of no part as ``other``."""
    assert isinstance(model, torch.nn.Module)
    seen: set[torch.nn.Parameter] = set()
    found = []
    for name, module in [*model.parts().items(), ("other", model)]:
        own = [parameter for parameter in module.parameters() if parameter not in seen]
        seen |= set(own)
        if own:
            found.append(Part(name, sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)))
    return found
