"""What a person sees on the terminal: bars where there is one, plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vislang.capabilities import Progress as Report


class _Console(Console):
    """A console that leaves it to the command line what happens once nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(highlight=False)
"""Where results go."""

messages = _Console(highlight=False, stderr=True)
"""Where progress goes, so that results can be piped."""


def columns() -> list:
    """The columns of every bar."""
    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    ]


@contextmanager
def reporting(what: str, every: float = 10.0) -> Iterator[Report]:
    """A function to call with (done, total): it moves a bar, or prints a line every so many seconds."""
    if messages.is_terminal:
        with Progress(*columns(), console=messages, transient=True) as bars:
            task = bars.add_task(what, total=None, note="")
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    started = last = time.monotonic()
    previous = (started, 0)

    def report(done: int, total: int) -> None:
        nonlocal started, last, previous
        now = time.monotonic()
        if done == 0:
            started = now
        elif done < previous[1]:
            # The next file is counted from 1 again.
            started = previous[0]
        previous = (now, done)
        if now - last >= every:
            last = now
            left = f", {_clock((now - started) / done * (total - done))} left" if done else ""
            print(f"{what}: {done}/{total}{left}", file=sys.stderr, flush=True)

    yield report


class TrainingMonitor:
    """Shows training: a bar with loss and ETA on a terminal, lines elsewhere.

    Args:
        steps: in all.
        log_every: steps between lines where there is no terminal.
    """

    def __init__(self, steps: int, log_every: int = 10):
        self._steps = steps
        self._first_step: int | None = None
        self._log_every = log_every
        self._started = time.monotonic()
        self._smooth: float | None = None
        self._bars: Progress | None = None

    def __enter__(self) -> TrainingMonitor:
        if console.is_terminal:
            self._bars = Progress(*columns(), console=console)
            self._bars.start()
            self._task = self._bars.add_task("training", total=self._steps, note="")
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bars is not None:
            self._bars.stop()

    def step(self, step: int, row: dict[str, Any]) -> None:
        """After each step."""
        if self._first_step is None:
            # A resumed run does not start at 1, and its first step pays for what later ones find done.
            self._first_step, self._started = step, time.monotonic()
        loss = row["loss"]
        self._smooth = loss if self._smooth is None else 0.9 * self._smooth + 0.1 * loss
        if self._bars is not None:
            self._bars.update(self._task, completed=step, note=f"loss {self._smooth:.3f}")
        elif step % self._log_every == 0 or step == self._steps:
            line = f"step {step}/{self._steps}  loss {self._smooth:.3f}"
            if step > self._first_step:
                rate = (time.monotonic() - self._started) / (step - self._first_step)
                line += f"  {1000 * rate:.0f} ms/step  ETA {_clock(rate * (self._steps - step))}"
            print(line, flush=True)

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """After each evaluation."""
        shown = "  ".join(f"{k.removeprefix('eval/')} {v:.3f}" for k, v in row.items() if k.startswith("eval/"))
        console.print(f"step {step}: {shown}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
