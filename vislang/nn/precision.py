"""Sums, norms and losses in enough precision."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor of half precision in float32; any other as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
