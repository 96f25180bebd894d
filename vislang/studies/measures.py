"""Measures of a study: figures of a finished run, from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vislang.errors import UserError, needs
from vislang.metrics.figure import Figures, figures_from_json
from vislang.runs.folder import read_json


class Measure(Protocol):
    """Figures of a finished run. A measure is a dataclass: its fields are part of the settings of a study."""

    def check(self) -> None:
        """Raise a UserError now, and not after hours of training, if something that it needs is not installed."""
        ...

    def __call__(self, run: Path) -> Figures:
        """The figures of the run in a folder."""
        ...


@dataclass(frozen=True)
class Scored:
    """The final scores of a task that the recipe is scored on; for a stream with a test split, the stream's name."""

    task: str

    def check(self) -> None:
        """See :class:`Measure`; nothing is needed."""

    def __call__(self, run: Path) -> Figures:
        """The figures in ``metrics.json``.

        Raises:
            UserError: the run was not scored on this task.
        """
        tasks = read_json(run / "metrics.json")["tasks"]
        if self.task not in tasks:
            raise UserError(f"{run}: not scored on {self.task}; its tasks are {', '.join(tasks) or 'none'}.")
        return figures_from_json(tasks[self.task]["figures"])


@dataclass(frozen=True)
class Probe:
    """The accuracy of a linear probe on the frozen features of the trained model (``vislang probe``)."""

    task: str

    def check(self) -> None:
        """See :class:`Measure`.

        Raises:
            UserError: scikit-learn is not installed.
        """
        needs("sklearn", "eval", "a probe")

    def __call__(self, run: Path) -> Figures:
        """The accuracy on the task's test examples."""
        from vislang.evaluate.features import frozen_features
        from vislang.evaluate.probe import probe
        from vislang.models.loading import load
        from vislang.tasks.catalogue import open_task
        from vislang.tasks.probes import as_probe

        task = as_probe(open_task(self.task))
        features = frozen_features(load(run / "model"), [item.prompt for item in task.items])
        return {"accuracy": probe(features, task).accuracy}
