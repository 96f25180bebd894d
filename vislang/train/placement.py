"""Where a model fits: the memory that each way of sharing the work takes of a device, by what one step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from vislang.train.footprint import Footprint, Memory

GIB = 2**30

Parallel = Literal["none", "ddp", "fsdp2"]


@dataclass(frozen=True)
class Assumptions:
    """What is taken for granted of the engine and of devices; all other figures are counted.

    Attributes:
        shard_above: parameters of a frozen tower above which ``fsdp2`` shards its blocks; smaller ones stay whole.
        whole_blocks: how many blocks ``fsdp2`` has whole on a device at a time: the one that runs, and the next.
        free: share of a device's memory that stays free, for what allocators and libraries need beside tensors.
    """

    shard_above: float = 1e9
    whole_blocks: int = 2
    free: float = 0.1


@dataclass(frozen=True)
class Placement:
    """A way of sharing the work, and what it takes of each device.

    Attributes:
        parallel: the setting's name.
        devices: that take part.
        memory: of each; None where it was not worked out, since less already does not fit.
        fits: whether it can be used.
        why: the reason, in a clause.
    """

    parallel: Parallel
    devices: int
    memory: Memory | None
    fits: bool
    why: str


@dataclass(frozen=True)
class Sizes:
    """The parameters of a model, in bytes, by what the settings do with them.

    Attributes:
        trained: what has a gradient.
        cut: what ``fsdp2`` cuts into a share for each device.
        whole: on every device: small frozen towers, buffers, and what is in no block of a large one.
        largest_block: of the blocks that are cut, as it is when it runs.
        largest_gradient: of the blocks that train.
    """

    trained: int
    cut: int
    whole: int
    largest_block: int
    largest_gradient: int


def sizes_of(model: nn.Module, parts: Iterable[nn.Module], dtype: torch.dtype, assume: Assumptions) -> Sizes:
    """Sort the parameters of a model.

    Args:
        model: whole.
        parts: of it; those without a parameter that trains are frozen towers.
        dtype: that blocks are gathered in.
        assume: see there.
    """
    found = list(blocks(model))
    in_blocks = {parameter for block in found for parameter in block.parameters()}
    whole: set[nn.Parameter] = set()
    for part in parts:
        parameters = set(part.parameters())
        if not any(parameter.requires_grad for parameter in parameters):
            count = sum(parameter.numel() for parameter in parameters)
            whole |= parameters - in_blocks if count > assume.shard_above else parameters
    cut = [parameter for parameter in model.parameters() if parameter not in whole]

    def gathered(block: nn.Module, trains: bool = False) -> int:
        own = [p for p in block.parameters() if p not in whole and (p.requires_grad or not trains)]
        return sum(p.numel() * min(dtype.itemsize, p.itemsize) for p in own)

    return Sizes(
        trained=sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad),
        cut=sum(parameter.nbytes for parameter in cut),
        whole=sum(parameter.nbytes for parameter in whole) + sum(buffer.nbytes for buffer in model.buffers()),
        largest_block=max((gathered(block) for block in found), default=0),
        largest_gradient=max((gathered(block, trains=True) for block in found), default=0),
    )


def blocks(model: nn.Module) -> Iterable[nn.Module]:
    """The blocks that a model repeats: what its lists of modules hold, the outermost lists."""
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from child.children()
        else:
            yield from blocks(child)


def placements(
    share: Footprint,
    whole: Callable[[], Footprint],
    sizes: Sizes,
    devices: int,
    memory: float,
    assume: Assumptions,
) -> list[Placement]:
    """Every setting, whether it fits.

    Args:
        share: of a step in which a device has its share of the batch.
        whole: of a step in which one device has the whole batch; called where that may fit.
        sizes: of the model.
        devices: that there are.
        memory: of each, in bytes.
        assume: see there.
    """
    room = memory * (1 - assume.free)
    peak = share.peak

    def judged(parallel: Parallel, used: int, need: Memory) -> Placement:
        fits = need.total <= room
        why = "" if fits else f"a device needs {need.total / GIB:,.1f} GiB and has {room / GIB:,.1f}"
        return Placement(parallel, used, need, fits, why)

    found: list[Placement] = []
    static = replace(peak, copies=0, activations=0, gradients=0)
    if static.total > room:
        why = f"weights and moments alone take {static.total / GIB:,.1f} GiB, and a device has {room / GIB:,.1f}"
        found.append(Placement("none", 1, None, False, why))
    else:
        found.append(judged("none", 1, (share if devices == 1 else whole()).peak))
    if devices == 1:
        alone: list[Parallel] = ["ddp", "fsdp2"]
        return [*found, *(Placement(name, 1, None, False, "there is one device") for name in alone)]
    # Gradients are views of the buckets that they cross in, which are there all the time.
    replicated = replace(peak, copies=share.copies, gradients=sizes.trained, activations=share.activations)
    found.append(judged("ddp", devices, replicated))
    sharded = Memory(
        weights=sizes.cut // devices + sizes.whole + assume.whole_blocks * sizes.largest_block,
        gradients=sizes.trained // devices + sizes.largest_gradient,
        optimizer=peak.optimizer // devices,
        activations=share.activations,
    )
    return [*found, judged("fsdp2", devices, sharded)]
