"""A command in a process of its own, together with all processes that it starts in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

_LOOK = 0.02
"""Seconds between two looks at the processes."""


class _Process(NamedTuple):
    """A process of this machine, as the system lists it. Its number alone may be given to another one later."""

    parent: int
    started: str


class Child:
    """Python with some words, in a session of its own, so that Ctrl-C on the terminal does not reach it.

    Args:
        words: the command line, such as ``-m vislang.cli train recipe.yaml``.
        log: file that its output is appended to.
    """

    def __init__(self, words: Sequence[str], log: Path):
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._known: dict[int, str] = {}
        self._log, self._said = log, log.stat().st_size

    def ended(self) -> bool:
        """Whether the command itself has ended."""
        return self._process.poll() is not None

    def status(self) -> int:
        """Wait for the command's end; returns its exit status, negative for a signal."""
        return self._process.wait()

    def members(self) -> list[int]:
        """The numbers of its processes that still run, also of those whose parent has ended."""
        listed = _listed()
        if self.pid in listed and not self._known:
            self._known[self.pid] = listed[self.pid].started
        found = {pid for pid, started in self._known.items() if pid in listed and listed[pid].started == started}
        new = found
        while new := {pid for pid, process in listed.items() if process.parent in new} - found:
            found |= new
        self._known = {pid: listed[pid].started for pid in found}
        return sorted(found)

    def workers(self) -> list[int]:
        """The processes that a launcher has started to train, in no certain order; empty without a launcher."""
        listed = _listed()
        own = [pid for pid, process in listed.items() if process.parent == self.pid]
        return sorted(pid for pid in own if "vislang.cli train" in _command_line(pid))

    def send(self, number: signal.Signals, pids: Iterable[int] | None = None) -> None:
        """Send a signal to the command, or to some of its processes; those that have ended are passed over."""
        self._process.poll()
        for pid in [self.pid] if pids is None else pids:
            if pid == self.pid and self._process.returncode is not None:
                continue
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def wait_for_all(self, seconds: float) -> float | None:
        """Wait until all its processes have ended; returns how long it took, or None after ``seconds``.

        Looks are counted, not the clock: a machine that was suspended for a minute has given the processes no time.
        """
        started = time.monotonic()
        for _ in range(round(seconds / _LOOK)):
            if not self.members():
                return time.monotonic() - started
            self._process.poll()
            time.sleep(_LOOK)
        return None

    def end(self) -> None:
        """Kill all its processes."""
        while pids := self.members():
            self.send(signal.SIGKILL, pids)
            self._process.poll()
            time.sleep(0.01)
        self._process.wait()

    def said(self) -> str:
        """What it has printed."""
        with self._log.open("rb") as file:
            file.seek(self._said)
            return file.read().decode(errors="replace")


def _listed() -> dict[int, _Process]:
    """All processes of this machine that have not ended."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").is_file():
        return _listed_by_ps()
    found = {}
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            text = (proc / name / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name of the program, in brackets, may hold anything. See proc(5).
        state, parent, *rest = text.rpartition(")")[2].split()
        if state not in "ZX":
            found[int(name)] = _Process(int(parent), rest[17])
    return found


def _listed_by_ps() -> dict[int, _Process]:
    """The same where there is no /proc."""
    output = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat=,lstart="], capture_output=True, text=True, check=True)
    found = {}
    for line in output.stdout.splitlines():
        pid, parent, state, started = line.split(maxsplit=3)
        if not state.startswith("Z"):
            found[int(pid)] = _Process(int(parent), started)
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        listed = subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=False)
        return listed.stdout
