"""The numbers of each step, kept on the device until a log wants them: one transfer for many steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vislang.train.processes import Processes


@dataclass(frozen=True)
class StepSize:
    """How much a step computes, in all processes together.

    Attributes:
        streams: names of the streams that take part.
        examples: examples of their batches.
        tokens: tokens of their texts, padding not counted.
    """

    streams: tuple[str, ...]
    examples: int
    tokens: int


@dataclass
class StepNumbers:
    """What one process knows of a step.

    Attributes:
        step: its number, from 1.
        size: how much it computes.
        summed: numbers whose sum over processes is wanted: each process's share of a loss, say.
        same: numbers that every process has, on the host or on the device.
        names: records of this process behind each loss, as (names in ``summed``, records).
    """

    step: int
    size: StepSize
    summed: dict[str, Tensor] = field(default_factory=dict)
    same: dict[str, float | Tensor] = field(default_factory=dict)
    names: list[tuple[list[str], Sequence[str]]] = field(default_factory=list)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add to what is summed; a number that is there already grows."""
        for name, value in values.items():
            self.summed[name] = self.summed[name] + value if name in self.summed else value


@dataclass(frozen=True)
class StepRow:
    """A step's numbers on the host.

    Attributes:
        step: its number.
        size: how much it computed.
        values: by name, summed over processes.
        suspects: records of this process behind a loss that is not finite; where all its losses are finite, all.
    """

    step: int
    size: StepSize
    values: dict[str, float]
    suspects: list[str]


class Rows:
    """Steps whose numbers are still on the device.

    Args:
        processes: of the run.
        device: that the numbers are on.
    """

    def __init__(self, processes: Processes, device: torch.device):
        self._processes = processes
        # Apple's GPUs have no float64.
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._steps: list[tuple[StepNumbers, Tensor]] = []

    def add(self, step: StepNumbers) -> None:
        """Keep the numbers of a step; nothing is waited for."""
        same = [value for value in step.same.values() if isinstance(value, Tensor)]
        numbers = [value.detach().to(self._dtype) for value in (*step.summed.values(), *same)]
        self._steps.append((step, torch.stack(numbers)))

    def fetch(self) -> list[StepRow]:
        """The rows since the last call, which every process has to make after the same step."""
        if not self._steps:
            return []
        own = torch.cat([numbers for _, numbers in self._steps])
        mine = own.tolist()
        total = self._processes.sum_tensor(own.clone()).tolist()
        rows, start = [], 0
        for step, numbers in self._steps:
            part = slice(start, start + len(numbers))
            start += len(numbers)
            count = len(step.summed)
            values = dict(zip(step.summed, total[part][:count], strict=True))
            own_numbers = iter(mine[part][count:])
            values |= {
                name: next(own_numbers) if isinstance(value, Tensor) else value for name, value in step.same.items()
            }
            here = dict(zip(step.summed, mine[part][:count], strict=True))
            bad = [records for losses, records in step.names if not all(math.isfinite(here[name]) for name in losses)]
            suspects = [name for records in bad or [records for _, records in step.names] for name in records]
            rows.append(StepRow(step.step, step.size, values, suspects))
        self._steps.clear()
        return rows


def as_json(values: Mapping[str, float]) -> dict[str, Any]:
    """Numbers for a line of JSON, which has none that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
