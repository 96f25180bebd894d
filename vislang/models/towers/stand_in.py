"""Modules that replace layers in a shallow copy of a third-party model; the model itself does not change."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import Cache

from vislang.nn.recompute import recomputed

M = TypeVar("M", bound=nn.Module)


class StandIn(nn.Module):
    """Replaces a layer, with the attributes that the model reads from its layers."""

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
    """A layer whose inner activations are recomputed; see :func:`vislang.nn.recompute.recomputed`.

    A layer adds its keys and values to its cache. It runs twice, so it gets a copy of the cache each time. The cache
    itself does not grow.
    """

    def forward(self, *args, **kwargs):
        """Call the layer."""
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        return recomputed(self._run, *args, **kwargs)

    def _run(self, *args, **kwargs):
        return self.layer(*map(_fresh, args), **{name: _fresh(value) for name, value in kwargs.items()})


def _fresh(value: Any) -> Any:
    """A copy of a cache that grows independently; other values unchanged."""
    if not isinstance(value, Cache):
        return value
    copied = copy.copy(value)
    copied.layers = [copy.copy(layer) for layer in value.layers]
    return copied


def with_recomputed_layers(model: M) -> M:
    """A shallow copy of a third-party model in which the members of module lists are recomputed.

    Modules are copied; parameters and buffers are shared.
    """
    twin = copy.copy(model)
    repeats = isinstance(model, nn.ModuleList)
    twin._modules = {
        name: child if child is None else RecomputedLayer(child) if repeats else with_recomputed_layers(child)
        for name, child in model._modules.items()
    }
    return twin
