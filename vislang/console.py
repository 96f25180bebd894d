"""What a person sees on the terminal: bars where there is one, plain lines where there is none.

Of several processes that train together only the first one shows anything; the others set ``quiet``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vislang.capabilities import Progress as Report
from vislang.metrics.figure import plain, show
from vislang.train.log import losses_of, rates_in_words


class _Console(Console):
    """A console that leaves it to the command line what happens once nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(highlight=False)
"""Where results go."""

messages = _Console(highlight=False, stderr=True)
"""Where progress goes, so that results can be piped."""


@contextmanager
def reporting(what: str, every: float = 10.0) -> Iterator[Report]:
    """A function to call with (done, total): it moves a bar, or prints a line every so many seconds."""
    if messages.quiet:
        yield lambda done, total: None
        return
    if messages.is_terminal:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=messages, transient=True) as bars:
            task = bars.add_task(what, total=None)
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
    """Shows training: a bar with losses, rates and time left on a terminal, lines with the same elsewhere.

    Losses and rates are running means, so that one step does not make them jump.

    Args:
        steps: in all; 0 where :meth:`expect` will say.
        log_every: steps between lines where there is no terminal.
        output: where to show it.
    """

    def __init__(self, steps: int, log_every: int = 10, output: Console = console):
        self._steps = steps
        self._log_every = log_every
        self._output = output
        self._first: tuple[int, float, float] | None = None
        self._means: dict[str, float] = {}
        self._live: Live | None = None

    def __enter__(self) -> TrainingMonitor:
        if self._output.is_terminal and not self._output.quiet:
            columns = (
                TextColumn("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA {task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=self._output)
            self._task = self._bar.add_task("training", total=self._steps, left="-:--")
            self._live = Live(self._bar, console=self._output)
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def expect(self, steps: int) -> None:
        """Set the number of steps, if it was not known at the start."""
        self._steps = steps

    def step(self, step: int, row: Mapping[str, Any]) -> None:
        """After each step."""
        if self._first is None:
            # A resumed run does not start at 1, and its first step pays for what later ones find done.
            self._first = step, time.monotonic(), row.get("seconds", 0.0)
        self._average({"loss": row["loss"], **{f"loss/{name}": loss for name, loss in losses_of(row).items()}})
        self._average({name: value for name, value in row.items() if name.startswith(("speed/", "memory/"))})
        if self._live is not None:
            left = self._time_left(step, row) or "-:--"
            self._bar.update(self._task, completed=step, total=self._steps, left=left)
            lines = (Text("  ".join(parts)) for parts in (self._losses(), self._rates()) if parts)
            self._live.update(Group(self._bar, *lines))
        elif step % self._log_every == 0 or step == self._steps:
            parts = [f"step {step}/{self._steps}", *self._losses(), *self._rates()]
            parts += [f"ETA {left}"] if (left := self._time_left(step, row)) else []
            self._print("  ".join(parts))

    def evaluated(self, step: int, row: Mapping[str, Any]) -> None:
        """After each evaluation."""
        figures = {name.removeprefix("eval/"): value for name, value in row.items() if name.startswith("eval/")}
        shown = [f"{name} {show(name.rpartition('/')[2], plain(value, 0))}" for name, value in figures.items()]
        self._print(f"step {step}: {'  '.join(shown)}")

    def _print(self, line: str) -> None:
        # One line each, however long: a file has no width.
        self._output.print(line, markup=False, soft_wrap=True)

    def _average(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            before = self._means.get(name, value)
            self._means[name] = 0.9 * before + 0.1 * value

    def _losses(self) -> list[str]:
        """The whole loss, and its parts where there are several."""
        parts = {name.removeprefix("loss/"): mean for name, mean in self._means.items() if name.startswith("loss/")}
        several = ", ".join(f"{name} {mean:.3f}" for name, mean in parts.items()) if len(parts) > 1 else ""
        return [f"loss {self._means['loss']:.3f}{f' ({several})' if several else ''}"]

    def _rates(self) -> list[str]:
        return [f"{value} {unit}" for unit, value in rates_in_words(self._means).items()]

    def _time_left(self, step: int, row: Mapping[str, Any]) -> str:
        """Empty in the first step, which has no rate yet."""
        assert self._first is not None
        first, started, seconds = self._first
        if step == first:
            return ""
        # The clock counts evaluations too. But from a GPU the rows of many steps come at once.
        taken = max(time.monotonic() - started, row.get("seconds", 0.0) - seconds)
        return _clock(taken / (step - first) * (self._steps - step))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
