"""A time budget: a few steps are timed in a trial, and the run gets as many steps as fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from vislang.errors import UserError

UNTIMED = 2
"""Rounds of the trial that are not timed: the first steps also load, allocate and compile."""

TIMED = 5
"""Least number of timed rounds."""

SHARE = 0.015
"""Least share of the budget for the timed rounds."""

MOST = 0.25
"""Share of the budget after which the trial ends in any case."""

EASY = 1.25
"""The trial ends early if the largest number of steps would fit even if each took this many times as long."""


@dataclass(frozen=True)
class Budget:
    """The outcome of a trial.

    Attributes:
        minutes: the time budget.
        steps: number of steps of the run.
        seconds_per_step: mean over the timed steps.
        tried: steps of the trial; their time counts in the budget.
    """

    minutes: float
    steps: int
    seconds_per_step: float
    tried: int


def steps_within(
    minutes: float,
    at_most: int | None,
    try_step: Callable[[int], object],
    streams: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Budget:
    """Time some steps, and compute how many fit into the rest of a time budget.

    Args:
        minutes: the budget, for the trial and the run together.
        at_most: largest number of steps of the run; None for any number.
        try_step: runs a step; its argument is the number of the step, counted from 0.
        streams: steps in a round. Streams that take turns need different times for a step.
        clock: returns seconds; all processes of a run need the same clock.

    Raises:
        UserError: no step fits.
    """
    limit, started = 60 * minutes, clock()
    tried = 0

    def try_round() -> float:
        nonlocal tried
        for _ in range(streams):
            try_step(tried)
            tried += 1
        return clock()

    timed_from = try_round()
    for _ in range(UNTIMED - 1):
        if timed_from - started < MOST * limit / 2:
            timed_from = try_round()
    untimed = tried
    while True:
        now = try_round()
        timed = tried - untimed
        all_fit = at_most is not None and EASY * at_most * (now - timed_from) / timed <= limit - (now - started)
        enough = timed >= TIMED * streams and (all_fit or now - timed_from >= SHARE * limit)
        if enough or now - started >= MOST * limit or (at_most is not None and at_most <= timed):
            break
    seconds_per_step = (now - timed_from) / (tried - untimed)
    steps = int((limit - (now - started)) / seconds_per_step)
    if steps < 1:
        raise UserError(
            f"train.minutes is {minutes:g}: a step takes {seconds_per_step:.1f} s, so no step fits after a trial of "
            f"{tried}. Raise it, or make a step smaller (train.batch_size)."
        )
    return Budget(minutes, steps if at_most is None else min(steps, at_most), seconds_per_step, tried)
