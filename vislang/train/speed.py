"""How fast a run is: examples and tokens a second, the share of the device's matrix rate, and memory.

The matrix rate is measured, not looked up: what ``torch.matmul`` reaches on this device, in the type that the model
multiplies in. The floating-point operations of a step are counted once for each set of streams that take part; later
steps have batches of about the same size. torch's ``FlopCounterMode`` decomposes some operations, which changes the
last bits of a gradient. The counter here changes nothing, so a resumed run, which counts again, has the same losses.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vislang.train.operations import operations_of
from vislang.train.rows import StepSize

PRODUCT_SECONDS = 0.01
"""A product that takes less time is too small to measure a rate."""

MEASURED_SECONDS = 0.15
"""Products are repeated for this time."""

LARGEST = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Greatest number of rows of the matrices, by type of device."""


class Stopwatch:
    """The seconds during which it ran.

    Args:
        seconds: that are there already.
    """

    def __init__(self, seconds: float = 0.0):
        self._stopped_at = seconds
        self._started: float | None = None

    def start(self) -> None:
        """Run."""
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop, if it runs."""
        self._stopped_at, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        """The seconds until now."""
        return self._stopped_at + (0.0 if self._started is None else time.perf_counter() - self._started)


class Speed:
    """Counts the operations of steps, and measures their rates.

    Args:
        device: device that the model computes on.
        counts: whether operations are counted; not with ``torch.compile``, which does not compile a block that runs
            while they are.
    """

    def __init__(self, device: torch.device, counts: bool = True):
        self._device = device
        self._counts = counts
        self._operations: dict[tuple[str, ...], Counter[torch.dtype]] = {}

    @contextmanager
    def counted(self, streams: tuple[str, ...]) -> Iterator[None]:
        """Count the operations of the step within, if those of a step of these streams are not known yet."""
        if not self._counts or streams in self._operations:
            yield
            return
        with _Counter() as counter:
            yield
        self._operations[streams] = counter.operations

    def row(self, seconds: float, size: StepSize) -> dict[str, float]:
        """The rates of a step, for the log.

        Args:
            seconds: how long it took.
            size: how much it computed, in all processes.

        Returns:
            ``speed/examples_per_second``; ``speed/tokens_per_second``, if there are texts; if operations were counted,
            ``speed/flops_per_second`` of this process, and ``speed/matmul_share``, their share of what ``torch.matmul``
            reaches here; and ``memory/peak_gib``, if the system reports it.
        """
        found = {"speed/examples_per_second": size.examples / seconds}
        if size.tokens:
            found["speed/tokens_per_second"] = size.tokens / seconds
        if operations := self._operations.get(size.streams):
            rate = operations.total() / seconds
            ((dtype, _),) = operations.most_common(1)
            share = rate / matrix_rate(self._device, dtype)
            found |= {"speed/flops_per_second": rate, "speed/matmul_share": share}
        if (memory := peak_memory(self._device)) is not None:
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
    """The largest number of bytes that were allocated on the device; on a CPU, that this process has had, without those
    of its workers. None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        # Metal reports what is allocated now, not the largest amount.
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
    """Counts floating-point operations by number type, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if count := operations_of(func, args, kwargs, result):
            self.operations[args[0].dtype] += count
        return result
