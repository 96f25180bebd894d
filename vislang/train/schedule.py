"""Schedules: the learning rate, as a factor on its peak, and the tasks that take part in a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vislang.train.config import TrainConfig


def rate_factor(config: TrainConfig, step: int) -> float:
    """The learning rate of a step as a factor on the peak rate.

    Every schedule rises in a straight line over the warm-up: the factor is ``n / warmup_steps`` in update n, counted
    from 1. After it:

    * ``constant`` stays at 1.
    * ``linear`` falls in a straight line to ``final_lr``.
    * ``cosine`` falls along half a cosine to ``final_lr`` (Loshchilov and Hutter 2017, without restarts). The cosine
      spans all steps, and the warm-up is a factor on it.
    * ``tri-stage`` stays at 1, then falls exponentially to ``final_lr`` over the last ``decay_share`` of the steps
      (Park et al. 2019, section 3.2; data2vec v1 on speech).
    * ``inverse-sqrt`` falls as ``sqrt(warmup_steps / n)``, whatever the number of steps (Vaswani et al. 2017,
      section 5.3).

    Args:
        config: schedule, number of steps, warm-up and final rate.
        step: steps done before this one.

    Returns:
        The factor, at least 0 and at most 1.
    """
    warmup, final = config.warmup_steps, config.final_lr
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if config.schedule == "constant":
        return rise
    if config.schedule == "inverse-sqrt":
        return rise * math.sqrt(min(1.0, max(warmup, 1) / (step + 1)))
    end = config.number_of_steps
    if config.schedule == "linear":
        return rise * (1 - (1 - final) * _progress(step, warmup, end))
    if config.schedule == "tri-stage":
        return rise * final ** _progress(step, end - round(config.decay_share * end), end)
    return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * _progress(step, 0, end))))


def _progress(step: int, first: int, end: int) -> float:
    """How much of the way from one step to another is done, from 0 to 1."""
    return min(1.0, max(0, step - first) / max(1, end - first))


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
