"""How fast a run is: examples and tokens a second, the share of the device's matrix rate, and memory.

The matrix rate is measured, not looked up: what ``torch.matmul`` reaches on this device, in the type that the model
multiplies in. The floating-point operations of a step are counted by torch itself
(:class:`torch.utils.flop_counter.FlopCounterMode`) the first time that a stream takes part in a step. Counting slows
that one step a little, changes none of its results, and serves all later steps: their batches have about the same size.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

ROUND_SECONDS = 0.01
"""A product that takes less is too small to measure a rate by."""

MEASURED_SECONDS = 0.15
"""Time that measuring the matrix rate takes, about."""

LARGEST = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""The most rows of the matrices that are multiplied, by type of device."""


class Speed:
    """Measures the steps of a run.

    Args:
        device: that the model computes on.
        dtype: in which it multiplies.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device = device
        self.matrix_rate = matrix_rate(device, dtype)
        self._operations: dict[str, int] = {}

    @contextmanager
    def counted(self, stream: str) -> Iterator[None]:
        """Count the operations of forward and backward pass within, unless those of this stream are known."""
        if stream in self._operations:
            yield
            return
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
            yield
        self._operations[stream] = counter.get_total_flops()

    def row(self, seconds: float, batches: Mapping[str, tuple[int, int]]) -> dict[str, float]:
        """What the log says of a step.

        Args:
            seconds: that it took.
            batches: examples and tokens of each stream that took part, by its name. A stream without texts has no
                tokens.

        Returns:
            ``speed/examples_per_second``; ``speed/tokens_per_second``, where there are any; the rate of floating-point
            operations, ``speed/flops_per_second``, and its share of that of ``torch.matmul``, ``speed/matmul_share``,
            where some were counted; and ``memory/peak_gib``, where the system tells.
        """
        examples = sum(count for count, _ in batches.values())
        tokens = sum(count for _, count in batches.values())
        rate = sum(self._operations.get(stream, 0) for stream in batches) / seconds
        found = {"speed/examples_per_second": examples / seconds}
        if tokens:
            found["speed/tokens_per_second"] = tokens / seconds
        if rate:
            found |= {"speed/flops_per_second": rate, "speed/matmul_share": rate / self.matrix_rate}
        if (memory := peak_memory(self.device)) is not None:
            found["memory/peak_gib"] = memory / 2**30
        return found


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of ``torch.matmul``, a multiply-add counted as two: the best of some products
    of large square matrices. Measured once a process, in about a fifth of a second."""
    generator = torch.Generator().manual_seed(0)

    def product_seconds(left: Tensor, right: Tensor, out: Tensor) -> float:
        _wait_for(device)
        started = time.perf_counter()
        torch.matmul(left, right, out=out)
        _wait_for(device)
        return time.perf_counter() - started

    size = 256
    with torch.no_grad():
        while True:
            left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
            out = torch.empty_like(left)
            product_seconds(left, right, out)
            seconds = product_seconds(left, right, out)
            if seconds >= ROUND_SECONDS or size >= LARGEST.get(device.type, 2048):
                break
            size *= 2
        rounds = max(1, min(20, round(MEASURED_SECONDS / seconds)))
        best = min(seconds, *(product_seconds(left, right, out) for _ in range(rounds)))
    return 2.0 * size**3 / best


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that the run has held: of the device's memory, or, on a processor, of the process (not of those
    that prepare its batches). None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        # Metal tells what is held now, not the most that was.
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _linear(x: torch.Size, weight: torch.Size, *rest: Any, **named: Any) -> int:
    return 2 * x.numel() * weight[0]


def _attention(queries: torch.Size, keys: torch.Size, values: torch.Size, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(queries, keys, values)


def _attention_backward(
    gradient: torch.Size, queries: torch.Size, keys: torch.Size, values: torch.Size, *rest: Any, **named: Any
) -> int:
    return sdpa_backward_flop_count(gradient, queries, keys, values)


_FORMULAS = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operations of what only a processor runs, by the shapes of the arguments; torch's counter knows all others."""
