"""Where a run fits: the memory of a device that each parallel setting needs, given the footprint of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from vislang.train.config import Parallel, TrainConfig
from vislang.train.footprint import Footprint, Memory
from vislang.train.parallel import kept_whole, large_towers, reduces_each_pass

GIB = 2**30

RESERVED = 0.1
"""Share of a device's memory that a plan leaves to allocators and libraries."""

GATHERED_BLOCKS = 3
"""Blocks whose parameters are whole on a device at a time under ``fsdp2``: the one that runs, the next one, and the
buffer in which that one arrives."""

REDUCED_BLOCKS = 2
"""Blocks whose gradients are whole at a time under ``fsdp2``: the one that was computed last, and the one before, which
is on its way to the other devices."""


@dataclass(frozen=True)
class Placement:
    """A parallel setting, and the memory that it needs.

    Attributes:
        parallel: name of the setting.
        devices: number of devices that take part.
        memory: of each device; None if it was not computed, because a part of it is already too much.
        host: bytes of host memory of each process for the whole model, if that is not on the device.
        traffic: bytes that each device receives from others in a step.
        fits: whether the setting can be used.
        why: why not, in a sentence.
    """

    parallel: Parallel
    devices: int
    memory: Memory | None
    host: int
    traffic: int
    fits: bool
    why: str


@dataclass(frozen=True)
class Sizes:
    """The parameters of a model under ``fsdp2``, in bytes.

    Attributes:
        trained: trained parameters, as they are stored.
        sharded: parameters that are sharded.
        kept: parameters and buffers that every device has whole.
        gathered: sharded parameters when all are gathered, in the number type of the computation.
        root: those of them that are in no block; they stay whole during a pass.
        block: those of the largest block.
        gradient: the gradient of the largest trained block: as computed, and in float32 to be reduced.
        rest: the whole model beside the shards, on a device.
        host: the whole model beside the shards, on the host.
    """

    trained: int
    sharded: int
    kept: int
    gathered: int
    root: int
    block: int
    gradient: int
    rest: int
    host: int


def sizes_of(model: Any, config: TrainConfig) -> Sizes:
    """The sizes of a model as :class:`~vislang.train.parallel.ShardedEngine` shards it."""
    dtype = getattr(model, "dtype", torch.float32)
    parameters: list[nn.Parameter] = list(model.parameters())
    kept = kept_whole(model, config.shard_above) | {p for p in parameters if p.requires_grad and p.ndim == 0}

    def gathered(parameter: nn.Parameter) -> int:
        return parameter.numel() * min(dtype.itemsize, parameter.itemsize)

    blocks, grouped = [], set(kept)
    for block in model.repeated_blocks():
        blocks.append([parameter for parameter in block.parameters() if parameter not in grouped])
        grouped |= set(blocks[-1])
    reduced = [sum(gathered(p) + 4 * p.numel() for p in block if p.requires_grad) for block in blocks]
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    whole = sum(parameter.nbytes for parameter in parameters) + buffers
    shared = sum(p.nbytes for p in kept_whole(model, config.shard_above))
    on_host = bool(large_towers(model, config.shard_above))
    return Sizes(
        trained=sum(p.nbytes for p in parameters if p.requires_grad),
        sharded=sum(p.nbytes for p in parameters if p not in kept),
        kept=sum(p.nbytes for p in kept) + buffers,
        gathered=sum(gathered(p) for p in parameters if p not in kept),
        root=sum(gathered(p) for p in parameters if p not in grouped),
        block=max((sum(map(gathered, block)) for block in blocks), default=0),
        gradient=max(reduced, default=0),
        rest=0 if on_host else whole - shared,
        host=whole if on_host else 0,
    )


def placements(
    model: Any,
    config: TrainConfig,
    share: Footprint,
    whole: Callable[[], Footprint],
    devices: int,
    memory: float,
    passes: int,
) -> list[Placement]:
    """All parallel settings, and whether they fit.

    Args:
        model: the model, with real or fake parameters.
        config: settings of the training.
        share: of a step in which a device computes its share of the batch.
        whole: returns that of a step in which one device computes the whole batch; called only if that may fit.
        devices: number of devices.
        memory: of each device, in bytes.
        passes: backward passes of a device in a step.
    """
    room = memory * (1 - RESERVED)
    peak = share.peak

    def judged(parallel: Parallel, used: int, need: Memory, host: int = 0, traffic: float = 0) -> Placement:
        fits = need.total <= room
        return Placement(parallel, used, need, host, round(traffic), fits, "" if fits else _too_much(need, room))

    found: list[Placement] = []
    static = replace(peak, copies=0, activations=0, gradients=0)
    if static.total > room:
        why = f"weights and optimizer alone need {_gib(static.total)} per device; {_gib(room)} can be used"
        found.append(Placement("none", 1, None, 0, 0, False, why))
    else:
        found.append(judged("none", 1, (share if devices == 1 else whole()).peak))
    if devices == 1:
        several: list[Parallel] = ["ddp", "fsdp2"]
        return [*found, *(Placement(name, 1, None, 0, 0, False, "needs several devices") for name in several)]
    sizes = sizes_of(model, config)
    # Gradients are views of the buffers in which they are exchanged, and these stay allocated.
    replicated = replace(peak, copies=share.copies, gradients=sizes.trained, activations=share.activations)
    others = (devices - 1) / devices
    # Gradients are summed in a ring: once around for the sums, once more to distribute them.
    found.append(judged("ddp", devices, replicated, traffic=2 * sizes.trained * others))
    each_pass = reduces_each_pass(model, config.shard_above)
    # Parameters are gathered for the forward and for the backward pass.
    exchanged = 2 * passes * sizes.gathered + sizes.trained * (passes if each_pass else 1)
    whole_gradients = passes > 1 and not each_pass
    sharded = Memory(
        weights=-(-sizes.sharded // devices) + sizes.kept + sizes.rest,
        copies=sizes.root + GATHERED_BLOCKS * sizes.block,
        gradients=sizes.trained if whole_gradients else -(-sizes.trained // devices) + REDUCED_BLOCKS * sizes.gradient,
        optimizer=-(-peak.optimizer // devices),
        activations=share.activations,
    )
    return [*found, judged("fsdp2", devices, sharded, sizes.host, exchanged * others)]


def _too_much(need: Memory, room: float) -> str:
    """Why a setting does not fit, with the largest kind of memory, and how to need less of it."""
    kinds = {
        "weights": (need.weights + need.copies, ""),
        "gradients": (need.gradients, ""),
        "optimizer state": (need.optimizer, ""),
        "activations": (need.activations, "; --train.accumulate or --train.gradient_checkpointing true need less"),
    }
    name, (size, remedy) = max(kinds.items(), key=lambda kind: kind[1][0])
    return f"needs {_gib(need.total)} per device ({_gib(size)} of it {name}); {_gib(room)} can be used{remedy}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
