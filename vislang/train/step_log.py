"""Where the numbers of steps go: ``metrics.jsonl``, the monitor, and the checks of what was logged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import MetricsLog
from vislang.train.monitor import Monitor
from vislang.train.processes import Processes
from vislang.train.rows import Rows, StepNumbers, StepRow
from vislang.train.speed import Speed, Stopwatch


class TrainingDiverged(UserError):
    """Losses or gradients are NaN or infinite; the message names the step and the records."""


class SkippedStep(UserWarning):
    """The gradient of a step was NaN or infinite, so it updated no parameter."""


class StepLog:
    """Where the numbers of steps go: ``metrics.jsonl``, the monitor, and the checks of what was logged.

    Attributes:
        speed: counts operations and measures rates.
    """

    def __init__(
        self,
        folder: Path,
        done: int,
        model: Any,
        streams: Sequence[Stream],
        config: TrainConfig,
        processes: Processes,
        device: torch.device,
        monitor: Monitor,
        clock: Stopwatch,
    ):
        self._checkpoints = folder / "checkpoints"
        self._model, self._config, self._processes, self._monitor = model, config, processes, monitor
        # As the numbers of each stream are named, where there are several.
        self._prefixes = [f"{stream.name}/" for stream in streams] if len(streams) > 1 else [""]
        self._rows = Rows(processes, device)
        self._file = MetricsLog(folder / "metrics.jsonl", done) if processes.is_first else None
        self._skipped: list[StepRow] = []
        self._clock, self._logged_until = clock, clock.seconds
        self.speed = Speed(device, counts=not config.compile)

    @property
    def skipped_in_a_row(self) -> int:
        """How many of the last steps updated no parameter."""
        return len(self._skipped)

    def add(self, numbers: StepNumbers, norm: Tensor, factor: float) -> None:
        """Take the numbers of a step; none is read yet."""
        config = self._config
        numbers.same |= {"gradient_norm": norm, "lr": config.lr * factor}
        numbers.same |= {f"lr/{name}": config.lr * scale * factor for name, scale in config.lr_scale.items()}
        self._rows.add(numbers)

    def write(self) -> None:
        """Read what has gathered, and log it.

        Reading waits for the device, and only then it is known how long these steps took: each an equal part of the
        time since the last call.

        Raises:
            TrainingDiverged: the gradient was not finite in more steps in a row than may be skipped.
        """
        rows = self._rows.fetch()
        self._clock.stop()
        each = (self._clock.seconds - self._logged_until) / max(len(rows), 1)
        for row in rows:
            self._logged_until += each
            faults = [f"{name} is {value}" for name, value in row.values.items() if not math.isfinite(value)]
            if faults:
                self._skip(row, faults)
                continue
            self._skipped.clear()
            for prefix in self._prefixes:
                own = {n.removeprefix(prefix): value for n, value in row.values.items() if n.startswith(prefix)}
                if own:
                    self._model.check(own, row.step - 1)
            if self._file is not None:
                rates = self.speed.row(each, row.size)
                values = {"step": row.step, **row.values, "seconds": round(self._logged_until, 3), **rates}
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
