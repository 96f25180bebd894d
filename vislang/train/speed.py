"""How fast a run is: examples and tokens a second, the share of the device's matrix rate, and memory.

The matrix rate is measured, not looked up: what ``torch.matmul`` reaches on this device, in the type that the model
multiplies in. The floating-point operations of a step are counted the first time that a stream takes part in one, by
the formulas of :mod:`torch.utils.flop_counter`; later steps have batches of about the same size. That module's own
counter also splits some operations into others, which changes the last bits of a gradient; ours only looks on, so that
a run that is resumed, and counts again, stays the same run.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

PRODUCT_SECONDS = 0.01
"""A product that takes less is too small to measure a rate by."""

MEASURED_SECONDS = 0.15
"""Time for which products are repeated."""

LARGEST = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""The most rows of the matrices that are multiplied, by type of device."""


class Speed:
    """Measures the steps of a run.

    Args:
        device: that the model computes on.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._operations: dict[str, Counter[torch.dtype]] = {}

    @contextmanager
    def counted(self, stream: str) -> Iterator[None]:
        """Count the operations of the forward and backward pass within, unless those of this stream are known."""
        if stream in self._operations:
            yield
            return
        with _Counter() as counter:
            yield
        self._operations[stream] = counter.operations

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
        operations = sum((self._operations.get(stream, Counter()) for stream in batches), Counter[torch.dtype]())
        found = {"speed/examples_per_second": examples / seconds}
        if tokens:
            found["speed/tokens_per_second"] = tokens / seconds
        if operations:
            rate = operations.total() / seconds
            ((dtype, _),) = operations.most_common(1)
            share = rate / matrix_rate(self.device, dtype)
            found |= {"speed/flops_per_second": rate, "speed/matmul_share": share}
        if (memory := peak_memory(self.device)) is not None:
            found["memory/peak_gib"] = memory / 2**30
        return found


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of ``torch.matmul``, a multiply-add counted as two.

    The best of some products of large square matrices, so that other work on the machine counts as little as it can.
    Measured once a process, in about a fifth of a second.
    """
    generator = torch.Generator().manual_seed(0)

    def fastest(repeat_for: float) -> float:
        """Seconds of the fastest of at least three products, after one that only warms up."""
        taken: list[float] = []
        while len(taken) <= 3 or sum(taken) < repeat_for:
            _wait_for(device)
            started = time.perf_counter()
            torch.matmul(left, right, out=out)
            _wait_for(device)
            taken.append(time.perf_counter() - started)
        return min(taken[1:])

    size = 256
    with torch.no_grad():
        while True:
            left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
            out = torch.empty_like(left)
            if size >= LARGEST.get(device.type, LARGEST["cpu"]) or fastest(0.0) >= PRODUCT_SECONDS:
                return 2.0 * size**3 / fastest(MEASURED_SECONDS)
            size *= 2


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


class _Counter(TorchDispatchMode):
    """Counts floating-point operations by the type of the numbers, and leaves everything as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(getattr(func, "overloadpacket", func))
        if formula is not None:
            self.operations[args[0].dtype] += formula(*args, **kwargs, out_val=result)
        return result


def _linear(x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


def _attention(queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(queries.shape, keys.shape, values.shape)


def _attention_backward(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *rest: Any, **named: Any
) -> int:
    return sdpa_backward_flop_count(gradient.shape, queries.shape, keys.shape, values.shape)


_FORMULAS = {
    **flop_registry,
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operations of a call: torch's formulas, and those of what only a processor runs."""
