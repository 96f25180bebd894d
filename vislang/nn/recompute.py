"""Gradient checkpointing: inner activations are recomputed in the backward pass instead of kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of tensors, and keep only its inputs for the backward pass, which calls it again.

    Both calls draw the same random numbers. Losses and gradients equal those of a plain call (Chen et al. 2016).
    """
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    return checkpoint(function, *args, use_reentrant=False, **kwargs)


class Recomputable(nn.Module, ABC):
    """A block that can be recomputed.

    Attributes:
        recompute: whether calls are recomputed; see :func:`recomputed`.
    """

    recompute = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module, hooks included."""
        if self.recompute:
            return recomputed(super().__call__, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of the block."""
