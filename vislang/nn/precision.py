"""The number type that a device multiplies fastest."""

from __future__ import annotations

import torch


def fastest_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 where this device multiplies it in hardware, else float32 (emulated, bfloat16 is slower)."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities()
        native = any(processor.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32
