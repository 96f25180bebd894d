"""What stands in for a layer of somebody else's model in a shallow copy of it; the model itself stays as it is."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import Cache

from vislang.nn.recompute import recomputed

M = TypeVar("M", bound=nn.Module)


class StandIn(nn.Module):
    """Stands in for a layer, and has the attributes that the model reads from its layers."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, *args, **kwargs):
        """Call the layer."""
        return self.layer(*args, **kwargs)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class RecomputedLayer(StandIn):
    """A layer whose inner activations are computed again in the backward pass; see :func:`vislang.nn.recompute`.

    A layer adds its keys and values to the cache that it is given. It would do so twice, so that it gets a copy of the
    cache each time, and the cache itself does not grow.
    """

    def forward(self, *args, **kwargs):
        """Call the layer."""
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        return recomputed(self._run, *args, **kwargs)

    def _run(self, *args, **kwargs):
        return self.layer(*map(_fresh, args), **{name: _fresh(value) for name, value in kwargs.items()})


def _fresh(value: Any) -> Any:
    """A copy of a cache that can grow by itself; anything else as it is."""
    if not isinstance(value, Cache):
        return value
    copied = copy.copy(value)
    copied.layers = [copy.copy(layer) for layer in value.layers]
    return copied


def with_recomputed_layers(model: M) -> M:
    """A twin of somebody else's model whose layers, the members of its module lists, are recomputed.

    Modules are copied, parameters and buffers are shared.
    """
    twin = copy.copy(model)
    repeats = isinstance(model, nn.ModuleList)
    twin._modules = {
        name: child if child is None else RecomputedLayer(child) if repeats else with_recomputed_layers(child)
        for name, child in model._modules.items()
    }
    return twin
