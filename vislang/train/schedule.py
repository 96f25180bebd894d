"""Learning-rate schedules, as factors on the peak rate."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup_steps: int, final: float = 0.0) -> float:
    """Rise in a straight line over the warm-up, then fall along half a cosine to ``final``.

    Args:
        step: number of the step, from 0.
        steps: steps in all.
        warmup_steps: steps of the rise.
        final: factor at the end.

    Returns:
        The factor, above 0 and at most 1 (Loshchilov and Hutter 2017, without restarts).
    """
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
