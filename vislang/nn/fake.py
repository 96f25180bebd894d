"""Tensors without contents: a training step goes through all of its shapes, and computes nothing.

torch's ``FakeTensorMode`` makes every tensor fake. A training step would then stop at the first decision that depends
on a value, such as which tokens have a target or which rows are padding. These values are integers and masks; they are
small, and known once a batch is collated. So here they stay real, and only what a model computes from its parameters is
fake. Such a step needs no weights and hardly any memory, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class FakeFloats(TorchDispatchMode):
    """While it is active, everything that is computed from a fake tensor is fake; the rest is computed as usual.

    As a number, a fake tensor is NaN.
    """

    def __init__(self):
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._building = False

    @contextmanager
    def building(self) -> Iterator[None]:
        """Build a model inside: new floating-point tensors are fake from the start."""
        self._building = True
        try:
            yield
        finally:
            self._building = False

    def empty(self, module: nn.Module) -> None:
        """Replace the parameters and floating-point buffers of a module by fake ones; their values are lost."""
        made: dict[Tensor, Tensor] = {}
        for part in module.modules():
            for named in (part._parameters, part._buffers):
                for name, tensor in named.items():
                    if tensor is not None and tensor.is_floating_point():
                        # Tied parameters stay tied.
                        named[name] = made.setdefault(tensor, self._of(tensor))  # type: ignore[assignment]

    def _of(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        fake = self._fake.from_tensor(tensor.detach())
        return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args)
        if not any(issubclass(kind, FakeTensor) for kind in types):
            if self._building and not any(isinstance(value, Tensor) for value in tree_leaves((args, kwargs))):
                with self._fake:
                    made = func(*args, **kwargs)
                if isinstance(made, Tensor) and made.is_floating_point():
                    return made
            return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            return float("nan")
        if func in INDEXED:
            args = (args[0], _positions(args[1]), *args[2:])
        return self._fake.dispatch(func, types, args, kwargs)


def _positions(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Indices with masks replaced by positions: the result's shape depends on their number."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            found.append(index)
        else:
            found += index.nonzero(as_tuple=True)
    return found
