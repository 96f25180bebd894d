"""The best evaluation of a run, whose checkpoint is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vislang.errors import UserError
from vislang.metrics.figure import METRICS
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig


class Best:
    """The best evaluation of a run so far."""

    def __init__(self, known: dict[str, Any] | None, streams: Sequence[Stream], config: TrainConfig):
        self._known = known
        watched = {stream.watched: True for stream in streams if stream.watched}
        # What is watched of a stream is better the higher it is.
        self._higher_is_better = {config.best: _higher_is_better(config.best)} if config.best else watched

    def update(self, step: int, figures: Mapping[str, float]) -> dict[str, Any] | None:
        """What to note of an evaluation that is the best so far; None where it is not.

        Raises:
            UserError: no figure has the name that the settings give.
        """
        if not figures or not self._higher_is_better:
            return None
        found = {name: figures[name] for name in self._higher_is_better if name in figures}
        if not found:
            names = ", ".join(self._higher_is_better)
            raise UserError(f"train.best: no figure {names}; this run has {', '.join(figures)}.")
        score = sum(v if self._higher_is_better[name] else -v for name, v in found.items()) / len(found)
        if not math.isfinite(score) or (self._known is not None and score <= self._known["score"]):
            return None
        self._known = {"step": step, "score": score, "figures": found}
        return self._known


def _higher_is_better(figure: str) -> bool:
    """The direction of a figure by its name; one that is no metric is a loss."""
    metric = METRICS.get(figure.rpartition("/")[2])
    return metric is not None and metric.higher_is_better
