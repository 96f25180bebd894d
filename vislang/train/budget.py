"""A time budget: some steps are tried and timed, then the run gets as many steps as fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from vislang.errors import UserError

UNTIMED = 2
"""Rounds before the clock counts: the first steps load, allocate and compile what later steps find ready."""

TIMED = 5
"""Rounds that are timed at least."""

SHARE = 0.03
"""Share of the budget that is spent on timing at least, unless ``MOST`` is reached."""

MOST = 0.25
"""Share of the budget after which trying ends in any case."""


@dataclass(frozen=True)
class Budget:
    """What fits into a time budget.

    Attributes:
        minutes: the budget.
        steps: how many steps the run has.
        seconds_per_step: as measured.
        tried: steps that were tried, whose time counts in the budget.
    """

    minutes: float
    steps: int
    seconds_per_step: float
    tried: int


def steps_within(
    minutes: float,
    at_most: int,
    try_step: Callable[[int], object],
    streams: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Budget:
    """Try steps, and find out how many fit into the rest of a time budget.

    Args:
        minutes: the budget, for trying and for the run.
        at_most: most steps of the run; 0 for any number.
        try_step: does a step by its number, counted from 0.
        streams: steps of a round; steps of different streams, which take turns, take different times.
        clock: seconds; several processes need one that they all read alike.

    Raises:
        UserError: not a single step fits.
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
        enough = tried - untimed >= TIMED * streams and now - timed_from >= SHARE * limit
        if enough or now - started >= MOST * limit or 0 < at_most <= tried - untimed:
            break
    seconds_per_step = (now - timed_from) / (tried - untimed)
    steps = int((limit - (now - started)) / seconds_per_step)
    if steps < 1:
        raise UserError(
            f"train.minutes is {minutes:g}: a step takes {seconds_per_step:.1f} s, so no step fits after {tried} were "
            "tried. Raise it, or make steps faster (train.batch_size)."
        )
    return Budget(minutes, min(steps, at_most or steps), seconds_per_step, tried)
