"""The number type that a model computes in."""

from __future__ import annotations

from typing import Literal

import torch

from vislang.nn.precision import fastest_dtype

Precision = Literal["float32", "bfloat16", "auto"]
"""``auto`` takes bfloat16 where the device multiplies it in hardware."""


def dtype_of(precision: Precision, device: torch.device | str = "cpu") -> torch.dtype:
    """The number type that a recipe's word means on a device."""
    return fastest_dtype(device) if precision == "auto" else getattr(torch, precision)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Multiply matrices in ``dtype``, where that is narrower than float32; weights stay as they are."""
    return torch.autocast(device.type, dtype, enabled=dtype.itemsize < torch.float32.itemsize)
