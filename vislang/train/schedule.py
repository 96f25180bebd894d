"""Schedules: the learning rate, as a factor on its peak, and the tasks that take part in a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


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


class StopAndGo:
    """Rests a task that has stopped improving while others learn (12-in-1, Lu et al. 2020, section 3.4).

    A task rests after two evaluations in a row that improve its best score by less than 0.1 %, and learns again once
    its score has fallen 0.5 % below its best. A resting task takes part in every fourth step, so that it is not
    forgotten; where all rest, all take part in every step.

    Args:
        names: of the tasks.
    """

    PATIENCE, IMPROVED, FALLEN, EVERY = 1, 0.001, 0.005, 4

    def __init__(self, names: Sequence[str]):
        self.best: dict[str, float | None] = dict.fromkeys(names)
        self.waited = dict.fromkeys(names, 0)
        self.resting = dict.fromkeys(names, False)

    def takes_part(self, name: str, step: int) -> bool:
        """Whether a task is part of a step, counted from 0; where tasks take turns, of those that are its own."""
        return not self.resting[name] or step % self.EVERY == 0 or all(self.resting.values())

    def update(self, scores: Mapping[str, float]) -> None:
        """Take the scores of an evaluation, the higher the better; NaN is passed over."""
        for name, score in scores.items():
            if math.isnan(score):
                continue
            best = self.best[name]
            if best is None or score > best + abs(best) * self.IMPROVED:
                self.best[name], self.waited[name] = score, 0
            elif self.resting[name]:
                if score < best - abs(best) * self.FALLEN:
                    self.resting[name], self.waited[name] = False, 0
            else:
                self.waited[name] += 1
                self.resting[name] = self.waited[name] > self.PATIENCE

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"best": self.best, "waited": self.waited, "resting": self.resting}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` gave.

        A run of one task keeps its state whatever the task was called: earlier versions named the only stream of a run
        after its system.
        """
        names = list(self.best)
        renamed = dict(zip(state["best"], names, strict=True)) if len(state["best"]) == len(names) == 1 else {}
        self.best, self.waited, self.resting = (
            {renamed.get(name, name): value for name, value in state[part].items()}
            for part in ("best", "waited", "resting")
        )
