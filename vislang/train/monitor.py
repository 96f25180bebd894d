"""Monitors: they are called with each row of ``metrics.jsonl``, to show it or to send it elsewhere."""

from __future__ import annotations

from typing import Any, Protocol


class Monitor(Protocol):
    """Called by the training loop, in the first process."""

    def step(self, step: int, row: dict[str, Any]) -> None:
        """Called for each step once its numbers are known, with what was logged."""
        ...

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """Called after each evaluation."""
        ...


class Monitors:
    """Several monitors as one."""

    def __init__(self, *monitors: Monitor):
        self._monitors = monitors

    def step(self, step: int, row: dict[str, Any]) -> None:
        """Call each monitor."""
        for monitor in self._monitors:
            monitor.step(step, row)

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """Call each monitor."""
        for monitor in self._monitors:
            monitor.evaluated(step, row)
