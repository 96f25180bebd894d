"""What the machine at hand has: memory, and the rate at which it multiplies matrices."""

from __future__ import annotations

import os
import statistics
import time

import torch


def memory() -> int:
    """Bytes of its GPU's memory; where torch sees none, of its main memory."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def matrix_rate(dtype: torch.dtype, size: int = 2048, rounds: int = 5) -> float:
    """Operations a second of products of two square matrices: the median of several, about a second in all."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        seconds.append(time.perf_counter() - started)
    # The first one warms up.
    return 2 * size**3 / statistics.median(seconds[1:])
