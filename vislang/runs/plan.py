"""What a recipe takes before it is trained: parameters, operations and memory, for any number of devices.

Steps are run on fake tensors (:mod:`vislang.nn.fake`), so that nothing is computed and no large model is in memory. Their
batches are of the recipe's own data, or, for the paper's Flamingos, as long as the paper's sequences
(:mod:`vislang.runs.loads`).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass

import torch

from vislang.capabilities import Trainable
from vislang.nn.fake import FakeFloats
from vislang.recipe import Recipe
from vislang.runs.loads import LoadOfData, LoadOfPaper, Loads, by_paper
from vislang.train.footprint import Footprint
from vislang.train.placement import Assumptions, Placement, placements, sizes_of


@dataclass(frozen=True)
class Part:
    """Parameters of a part of the model: how many there are, and how many of them train."""

    name: str
    count: int
    trained: int


@dataclass(frozen=True)
class Plan:
    """What a recipe takes.

    Attributes:
        parts: of the model.
        dtype: of the arithmetic.
        steps: of the run.
        examples: in a step.
        contents: of a step, by kind: ``tokens``, ``images`` and so on.
        operations: floating-point operations of a step on all devices together.
        placements: the settings, and what each takes of a device.
    """

    parts: list[Part]
    dtype: torch.dtype
    steps: int
    examples: int
    contents: dict[str, int]
    operations: float
    placements: list[Placement]

    @property
    def chosen(self) -> Placement | None:
        """The setting to take: of those that fit and use the most devices, the simplest. None where none fits."""
        fitting = [placement for placement in self.placements if placement.fits]
        return max(fitting, key=lambda placement: placement.devices, default=None)


@dataclass(frozen=True)
class Cost:
    """What a run takes in time and money.

    Attributes:
        rate: operations a second that a device is taken to do.
        step_seconds: of a step.
        hours: of the whole run.
        device_hours: of all devices together.
        price: of all device hours, in the currency of the price of one; None where none was given.
    """

    rate: float
    step_seconds: float
    hours: float
    device_hours: float
    price: float | None


def plan(recipe: Recipe, devices: int, memory: float, assume: Assumptions | None = None) -> Plan:
    """Work out what a recipe takes.

    Args:
        recipe: the recipe.
        devices: that share the work.
        memory: of each, in bytes.
        assume: of the engine.

    Raises:
        DataError: the recipe's data are not here.
        UserError: what the recipe names does not go together.
    """
    assume = assume or Assumptions()
    with FakeFloats() as fakes:
        loads: Loads = LoadOfPaper(recipe, fakes) if by_paper(recipe) else LoadOfData(recipe, fakes)
        counts = [math.ceil(size / devices) for size in loads.batch_sizes]
        share = loads.of(counts)
        model = loads.model

        def whole() -> Footprint:
            # What grows with the batch grows in a straight line.
            doubled = loads.of([2 * count for count in counts])
            times = max(size / count for size, count in zip(loads.batch_sizes, counts, strict=True)) - 1
            return _extended(share.footprint, doubled.footprint, times)

        sizes = sizes_of(model, model.parts().values(), model.dtype, assume)
        found = placements(share.footprint, whole, sizes, devices, memory, assume)
    # Streams that take turns share the steps.
    turns = len(counts) if recipe.train.mixing == "round-robin" else 1
    scales = [size / count / turns for size, count in zip(loads.batch_sizes, counts, strict=True)]
    contents = Counter[str]()
    for own, scale in zip(share.contents, scales, strict=True):
        contents.update({kind: value * scale for kind, value in own.items()})  # type: ignore[dict-item]
    return Plan(
        parts_of(model),
        model.dtype,
        recipe.train.steps,
        round(sum(loads.batch_sizes) / turns),
        {kind: round(value) for kind, value in contents.items()},
        sum(own * scale for own, scale in zip(share.footprint.operations, scales, strict=True)),
        found,
    )


def cost(found: Plan, rate: float, price: float | None = None) -> Cost:
    """How long the run takes, by its operations alone: evaluations and checkpoints come on top.

    Args:
        found: the plan; without a setting that fits, the time is that of one device.
        rate: operations a second that each device does.
        price: of a device for an hour.
    """
    devices = found.chosen.devices if found.chosen else 1
    step_seconds = found.operations / rate / devices
    hours = found.steps * step_seconds / 3600
    return Cost(rate, step_seconds, hours, hours * devices, None if price is None else hours * devices * price)


def _extended(once: Footprint, twice: Footprint, times: float) -> Footprint:
    """What a batch takes that is larger than that of ``once`` by so many times what ``twice`` has more."""

    def extend(one: int, other: int) -> int:
        return round(one + times * (other - one))

    peak = dataclasses.replace(once.peak, activations=extend(once.peak.activations, twice.peak.activations))
    activations, saved = extend(once.activations, twice.activations), extend(once.saved, twice.saved)
    return dataclasses.replace(once, peak=peak, activations=activations, saved=saved)


def parts_of(model: Trainable) -> list[Part]:
    """The parts; a parameter of two parts counts in the first, and one of none as ``other``."""
    assert isinstance(model, torch.nn.Module)
    seen: set[torch.nn.Parameter] = set()
    found = []
    for name, module in [*model.parts().items(), ("other", model)]:
        own = [parameter for parameter in module.parameters() if parameter not in seen]
        seen |= set(own)
        if own:
            found.append(Part(name, sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)))
    return found
