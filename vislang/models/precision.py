"""The number type that a model computes in."""

from __future__ import annotations

from typing import Literal

import torch

from vislang.nn.precision import fastest_dtype

Precision = Literal["float32", "bfloat16", "auto"]
"""``auto`` takes bfloat16 if the device has hardware for it."""


def dtype_of(precision: Precision, device: torch.device | str = "cpu") -> torch.dtype:
    """The number type of a recipe's setting on a device."""
    return fastest_dtype(device) if precision == "auto" else getattr(torch, precision)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Multiply matrices in ``dtype``, if that is narrower than float32; the weights keep their type."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))
