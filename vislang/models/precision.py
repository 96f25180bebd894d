"""The number type that a model computes in."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "auto"]
"""``auto`` takes bfloat16 if the device has hardware for it."""


def fastest_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 if this device has hardware for it, else float32 (emulated bfloat16 is slower)."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities()
        native = any(processor.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def dtype_of(precision: Precision, device: torch.device | str = "cpu") -> torch.dtype:
    """The number type of a recipe's setting on a device."""
    return fastest_dtype(device) if precision == "auto" else getattr(torch, precision)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Multiply matrices in ``dtype``; the weights keep their type."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))
