"""What a training step takes of a device: floating-point operations, and memory by what it is for.

Both are counted while the step runs, by the operators that it calls. The tensors may be real, or fake
(:mod:`vislang.train.fake`), which gives the same counts without the work.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from vislang.capabilities import Trainable
from vislang.train.config import TrainConfig
from vislang.train.optimizer import Optimizer

Kind = Literal["weights", "copies", "gradients", "optimizer", "activations"]


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for.

    Attributes:
        weights: parameters and buffers.
        copies: of parameters that train, in the number type of the arithmetic.
        gradients: of the parameters that train.
        optimizer: its moments.
        activations: batches, and whatever else is computed.
    """

    weights: int = 0
    copies: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Footprint:
    """What one step takes of one device.

    Attributes:
        operations: floating-point operations of the step's matrix products and convolutions, two a multiply-add; of
            each stream.
        peak: memory when the step holds most.
        activations: the most bytes of activations at any time; that may be another time than the peak's.
        saved: bytes of activations after a forward pass, which its backward pass needs.
        copies: the most bytes of copies.
    """

    operations: Sequence[float]
    peak: Memory
    activations: int
    saved: int
    copies: int

    def beside(self, kept: int) -> Footprint:
        """The same with so many bytes more, kept all the time."""
        peak = dataclasses.replace(self.peak, activations=self.peak.activations + kept)
        return dataclasses.replace(self, peak=peak, activations=self.activations + kept, saved=self.saved + kept)


def footprint(model: Trainable, batches: Sequence[Any], config: TrainConfig) -> Footprint:
    """Run one step as the training loop does, and count.

    It is a step in the middle of training: the optimizer has its moments already. The model is changed by it.

    Args:
        model: with real or with fake parameters.
        batches: of the step, one for each stream that takes part. Their gradients are added up.
        config: of the training.
    """
    assert isinstance(model, torch.nn.Module)
    optimizer = Optimizer(model, config)
    for parameter in optimizer.named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0)
    optimizer.zero_grad()
    counter = StepCounter()
    counter.hold([*model.parameters(), *model.buffers()], "weights")
    counter.hold(tree_leaves(optimizer.state()), "optimizer")
    counter.hold([tensor for batch in batches for tensor in tensors_of(batch)], "activations")

    def after_accumulation(parameter: Tensor) -> None:
        counter.hold([parameter.grad], "gradients")

    hooks = [p.register_post_accumulate_grad_hook(after_accumulation) for p in optimizer.named.values()]
    operations, saved = [], 0
    model.train()
    with counter:
        for batch in batches:
            before = counter.operations
            loss = torch.stack(list(model(batch).values())).sum()
            saved = max(saved, counter.held.activations)
            loss.backward()
            del loss
            operations.append(counter.operations - before)
        torch.nn.utils.clip_grad_norm_(list(optimizer.named.values()), config.clip_norm)
        optimizer.step(1.0)
        model.after_step()
    optimizer.zero_grad()
    for hook in hooks:
        hook.remove()
    return Footprint(operations, counter.peak, counter.most["activations"], saved, counter.most["copies"])


class StepCounter(TorchDispatchMode):
    """Counts operations and the memory of tensors, while it is active.

    Memory is that of storages: views take none, and what is freed counts no longer.

    Attributes:
        operations: floating-point operations so far, by torch's formulas.
        peak: memory when most was held.
        most: by kind, the most bytes at any time.
    """

    def __init__(self):
        super().__init__()
        self.operations = 0
        self.peak = Memory()
        self._held: dict[str, int] = dataclasses.asdict(self.peak)
        self.most = dict(self._held)
        self._total = 0
        self._kinds: dict[int, tuple[str, int]] = {}
        self._storages: dict[int, weakref.ref] = {}

    @property
    def held(self) -> Memory:
        """Memory that is held now."""
        return Memory(**self._held)

    def hold(self, tensors: Iterable[Any], kind: Kind) -> None:
        """Count what tensors take as memory of a kind, from now on until they are freed."""
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
        """Whether an operator gives a parameter in another number type."""
        if func is not torch.ops.aten._to_copy.default:
            return False
        return self._kinds.get(args[0].untyped_storage()._cdata, ("", 0))[0] == "weights"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (formula := FORMULAS.get(func._overloadpacket)) is not None:
            self.operations += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in [result] if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._kinds:
                    self._hold(storage, "copies" if self._is_copy(func, args) else "activations")
        if self._total > self.peak.total:
            self.peak = Memory(**self._held)
        for kind, size in self._held.items():
            if size > self.most[kind]:
                self.most[kind] = size
        return result


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors in a batch: in a dataclass, a tuple, a list, a dictionary, or itself one."""
    if isinstance(values, Tensor):
        return [values]
    if dataclasses.is_dataclass(values):
        values = [getattr(values, field.name) for field in dataclasses.fields(values)]
    if isinstance(values, dict):
        values = list(values.values())
    return [tensor for value in values for tensor in tensors_of(value)] if isinstance(values, list | tuple) else []


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


def _linear(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operations of an operator, by torch's counter, which lacks those of processors."""

if torch.backends.mkldnn.is_available():
    FORMULAS[torch.ops.mkldnn._linear_pointwise] = _linear
