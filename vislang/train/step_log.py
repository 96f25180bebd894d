"""Where the numbers of steps go: ``metrics.jsonl``, the monitor, and the checks of what was logged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.train.config import TrainConfig
from vislang.train.log import MetricsLog
from vislang.train.processes import Processes
from vislang.train.rows import Rows, StepNumbers, StepRow


class TrainingDiverged(UserError):
    """Losses or gradients are NaN or infinite; the message names the step and the records."""


class SkippedStep(UserWarning):
    """A step whose gradient was NaN or infinite changed nothing."""


class Monitor(Protocol):
    """Shows how training goes."""

    def step(self, step: int, row: dict[str, Any]) -> None:
        """Called for each step once its numbers are known, with what was logged."""
        ...

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """Called after each evaluation."""
        ...


class StepLog:
    """Where the numbers of steps go: ``metrics.jsonl``, the monitor, and the checks of what was logged."""

    def __init__(
        self,
        folder: Path,
        done: int,
        model: Any,
        config: TrainConfig,
        processes: Processes,
        device: torch.device,
        monitor: Monitor,
    ):
        self._checkpoints = folder / "checkpoints"
        self._model, self._config, self._processes, self._monitor = model, config, processes, monitor
        self._rows = Rows(processes, device)
        self._file = MetricsLog(folder / "metrics.jsonl", done) if processes.is_first else None
        self._skipped: list[StepRow] = []

    @property
    def skipped_in_a_row(self) -> int:
        """How many of the last steps changed nothing."""
        return len(self._skipped)

    def add(self, numbers: StepNumbers, norm: Tensor, factor: float, seconds: float) -> None:
        """Take the numbers of a step; none is read yet."""
        config = self._config
        numbers.same |= {"gradient_norm": norm, "lr": config.lr * factor}
        numbers.same |= {f"lr/{name}": config.lr * scale * factor for name, scale in config.lr_scale.items()}
        numbers.same["seconds"] = round(seconds, 3)
        self._rows.add(numbers)

    def write(self) -> None:
        """Read what has gathered, and log it.

        Raises:
            TrainingDiverged: the gradient was not finite in more steps in a row than may be skipped.
        """
        for row in self._rows.fetch():
            faults = [f"{name} is {value}" for name, value in row.values.items() if not math.isfinite(value)]
            if faults:
                self._skip(row, faults)
                continue
            self._skipped.clear()
            self._model.check(row.values, row.step - 1)
            if self._file is not None:
                values = {"step": row.step, **row.values}
                self._file.write(values)
                self._monitor.step(row.step, values)

    def _skip(self, row: StepRow, faults: Sequence[str]) -> None:
        suspects = list(dict.fromkeys(name for own in self._processes.gather(row.suspects) for name in own))
        self._skipped.append(replace(row, suspects=suspects))
        if self._file is not None:
            self._file.write({"step": row.step, "skipped": True, "records": suspects})
        first, count = self._skipped[0], len(self._skipped)
        was_applied = math.isfinite(row.values["gradient_norm"])
        if count <= self._config.skip_steps and not was_applied:
            if self._file is not None:
                warnings.warn(
                    f"step {row.step}: {'; '.join(faults)}. It was skipped. Its records: {_shown(suspects)}.",
                    SkippedStep,
                    stacklevel=4,
                )
            return
        faults = [f"{name} is {value}" for name, value in first.values.items() if not math.isfinite(value)]
        after = f", and so it went on for {count - 1} more steps" if count > 1 else ""
        raise TrainingDiverged(
            f"step {first.step}: {'; '.join(faults)}{after}. The records of step {first.step}: "
            f"{_shown(first.suspects)}. Nothing was updated, and the last checkpoint in {self._checkpoints} is from "
            "before. Lower train.lr, or look at these records."
        )

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of an evaluation, if there are any."""
        if figures and self._file is not None:
            row = {"step": step, **{f"eval/{name}": value for name, value in figures.items()}}
            self._file.write(row)
            self._monitor.evaluated(step, row)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
