"""What a training step needs of a device: floating-point operations, and memory by its use.

Both are counted while the step runs, operator by operator. The tensors may be real or fake (:mod:`vislang.nn.fake`);
the counts are the same, and fake tensors need no computation.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vislang.capabilities import Trainable
from vislang.train.config import TrainConfig
from vislang.train.operations import operations_of
from vislang.train.optimizer import Optimizer
from vislang.train.parallel import Engine
from vislang.train.processes import current

Kind = Literal["weights", "copies", "gradients", "optimizer", "activations"]


@dataclass(frozen=True)
class Memory:
    """Bytes by use.

    Attributes:
        weights: parameters and buffers.
        copies: of parameters, in another number type or gathered from shards.
        gradients: of the trained parameters.
        optimizer: state of the optimizer: two moments per parameter for AdamW, one for Muon.
        activations: batches, and everything else that is computed.
    """

    weights: int = 0
    copies: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Footprint:
    """What one step needs of one device.

    Attributes:
        operations: floating-point operations of each stream's matrix products and convolutions; a multiply-add is two.
        peak: memory at the moment when most is in use.
        activations: the largest number of bytes of activations, possibly at another moment.
        saved: the largest number of bytes of activations after a forward pass, which its backward pass needs.
        copies: the largest number of bytes of copies.
    """

    operations: Sequence[float]
    peak: Memory
    activations: int
    saved: int
    copies: int

    def plus(self, kept: int) -> Footprint:
        """The same with ``kept`` more bytes of activations all the time."""
        peak = dataclasses.replace(self.peak, activations=self.peak.activations + kept)
        return dataclasses.replace(self, peak=peak, activations=self.activations + kept, saved=self.saved + kept)


def optimizer_in_use(model: Trainable, config: TrainConfig) -> Optimizer:
    """The optimizer of a model as it is after the first step, with its state. The model changes."""
    optimizer = Optimizer(model, config)
    for parameter in optimizer.named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0)
    optimizer.zero_grad()
    return optimizer


def footprint(
    model: Trainable, streams: Sequence[Sequence[Any]], config: TrainConfig, update: bool = True
) -> Footprint:
    """Run one step in the same way as the training loop, and count.

    The step is one in the middle of a run, so the optimizer already has its state. The model changes.

    Args:
        model: with real or fake parameters.
        streams: for each stream of the step, its micro-batches.
        config: settings of the training.
        update: whether to clip the gradients and update the parameters. Otherwise only the passes are counted.
    """
    assert isinstance(model, torch.nn.Module)
    engine, optimizer = (
        Engine(model, current()),
        optimizer_in_use(model, config) if update else Optimizer(model, config),
    )
    counter = StepCounter()
    counter.hold([*model.parameters(), *model.buffers()], "weights")
    counter.hold(tree_leaves(optimizer.state()), "optimizer")
    counter.hold([tensor for batches in streams for batch in batches for tensor in tensors_of(batch)], "activations")

    def accumulated(parameter: Tensor) -> None:
        counter.hold([parameter.grad], "gradients")

    hooks = [p.register_post_accumulate_grad_hook(accumulated) for p in optimizer.named.values()]
    operations, saved = [], 0
    model.train()
    with counter:
        for batches in streams:
            before = counter.operations
            for batch in batches:
                loss = torch.stack(list(engine.losses(batch).values())).sum()
                saved = max(saved, counter.held.activations)
                engine.backward(loss)
                del loss
            operations.append(counter.operations - before)
        if update:
            engine.clip(config.clip_norm)
            optimizer.step(1.0)
            model.after_step()
    optimizer.zero_grad()
    for hook in hooks:
        hook.remove()
    return Footprint(operations, counter.peak, counter.most["activations"], saved, counter.most["copies"])


class StepCounter(TorchDispatchMode):
    """Counts operations and the memory of tensors while it is active.

    Memory is that of storages, so views need none, and freed memory is subtracted.

    Attributes:
        operations: floating-point operations so far, by torch's formulas.
        peak: memory at the moment when most was in use.
        most: the largest number of bytes of each kind.
    """

    def __init__(self):
        super().__init__()
        self.operations = 0
        self.peak = Memory()
        self._held: dict[str, int] = dataclasses.asdict(self.peak)
        self.most = dict(self._held)
        self._total = self._most_in_all = 0
        self._kinds: dict[int, tuple[str, int]] = {}
        self._storages: dict[int, weakref.ref] = {}

    @property
    def held(self) -> Memory:
        """The memory in use now."""
        return Memory(**self._held)

    def hold(self, tensors: Iterable[Any], kind: Kind) -> None:
        """Count the memory of tensors as that of a kind, from now on until they are freed."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage(), kind)

    def _hold(self, storage: torch.UntypedStorage, kind: Kind) -> None:
        key = storage._cdata
        if key not in self._kinds:
            self._storages[key] = weakref.ref(storage, lambda _: self._freed(key))
        else:
            self._forget(key)
        self._kinds[key] = kind, storage.nbytes()
        self._held[kind] += storage.nbytes()
        self._total += storage.nbytes()

    def _forget(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self._held[kind] -= size
        self._total -= size

    def _freed(self, key: int) -> None:
        self._forget(key)
        del self._storages[key]

    def _is_copy(self, func: Any, args: Any) -> bool:
        """Whether an operator converts a parameter to another number type."""
        if func is not torch.ops.aten._to_copy.default:
            return False
        return self._kinds.get(args[0].untyped_storage()._cdata, ("", 0))[0] == "weights"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.prim.device.default:
            return result
        self.operations += operations_of(func, args, kwargs, result)
        for tensor in [result] if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._kinds:
                    self._hold(storage, "copies" if self._is_copy(func, args) else "activations")
        if self._total > self._most_in_all:
            self._most_in_all = self._total
            self.peak = Memory(**self._held)
        for kind, size in self._held.items():
            if size > self.most[kind]:
                self.most[kind] = size
        return result


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors in a batch, which is a tensor, dataclass, tuple, list or dictionary."""
    if isinstance(values, Tensor):
        return [values]
    if dataclasses.is_dataclass(values):
        values = [getattr(values, field.name) for field in dataclasses.fields(values)]
    if isinstance(values, dict):
        values = list(values.values())
    return [tensor for value in values for tensor in tensors_of(value)] if isinstance(values, list | tuple) else []
