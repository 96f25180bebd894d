"""Peak memory of the process, from Linux."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def rise(run: Callable[[], object]) -> float:
    """The increase of this process's memory, in MiB, while ``run`` runs: its peak minus the memory before."""
    held = status("VmRSS")
    # Reset the peak.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run()
    return (status("VmHWM") - held) / 1024


def status(name: str) -> int:
    """A value in KiB of the process: ``VmRSS``, the memory that it holds, or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
