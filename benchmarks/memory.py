"""How much memory something takes, of the whole process, as Linux counts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def rise(run: Callable[[], object]) -> float:
    """How far this process's memory rises above what it holds while something runs, in MiB."""
    held = status("VmRSS")
    # Linux forgets the peak so far.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run()
    return (status("VmHWM") - held) / 1024


def status(name: str) -> int:
    """A line of the process's status, such as ``VmRSS`` (memory that it holds) and ``VmHWM`` (its peak), in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
