"""Number types: enough precision for sums, norms and losses, and the type that a device multiplies fastest."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor of half precision in float32; any other as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def fastest_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 if this device has hardware for it, else float32 (emulated bfloat16 is slower)."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities()
        native = any(processor.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32
