"""Experiment trackers that listen to a run: TensorBoard, trackio, Weights & Biases, MLflow.

``metrics.jsonl`` in the run's folder is the record in any case. A tracker gets the recipe once, then the numbers of
each row, then the final scores. Where a tracker keeps its data, and under which project, is set by its own variables
(``WANDB_MODE``, ``WANDB_PROJECT``, ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``, ``TRACKIO_DIR``); TensorBoard's
event files are in ``tensorboard/`` of the run's folder.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vislang.errors import UserError
from vislang.runs.folder import read_json, write_json

FILE = "tracking.json"
"""File in a run's folder with the trackers' ids of the run, so that a resumed run continues there."""

PROJECT = "vislang"
"""Project or experiment, if the tracker's own variables name none."""


class TrackingNotice(UserWarning):
    """A tracker failed and is dropped; training continues."""


class Tracker(Protocol):
    """What a run is sent to.

    Attributes:
        run_id: the tracker's id of the run. A resumed run is opened with it again.
    """

    run_id: str

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run_id: str | None): ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a row. A step may have several rows."""
        ...

    def close(self, failed: bool) -> None:
        """End the run; ``failed`` if it stopped before it was done."""
        ...


class TensorBoard:
    """Event files in ``tensorboard/`` of the run's folder."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run_id: str | None):
        from torch.utils.tensorboard import SummaryWriter

        self.run_id = "tensorboard"
        self._open = SummaryWriter
        self._folder = folder / self.run_id
        self._resumed = run_id is not None
        self._recipe = recipe
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars with the names of ``metrics.jsonl``."""
        if self._writer is None:
            # A resumed run logs the steps since its checkpoint again; this hides what was logged of them before.
            purged = step if self._resumed else None
            self._writer = self._open(str(self._folder), purge_step=purged, flush_secs=10)
            if not self._resumed:
                self._writer.add_text("recipe", f"```json\n{json.dumps(self._recipe, indent=2, default=str)}\n```", 0)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class Trackio:
    """A run of trackio, named after the folder."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run_id: str | None):
        import trackio

        self.run_id = run_id or f"{folder.resolve().name}-{secrets.token_hex(3)}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(project=project, name=self.run_id, config=_plain(recipe), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row."""
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """Finish the run; waits until everything is stored."""
        self._run.finish()


class WeightsAndBiases:
    """A run of W&B, named after the folder."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run_id: str | None):
        import wandb

        self.run_id = run_id or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.resolve().name,
            id=self.run_id,
            resume="allow",
            dir=str(folder),
            config=_plain(recipe),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; W&B ignores steps that it has already."""
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """Finish the run; uploads what is left."""
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow, named after the folder."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], run_id: str | None):
        import mlflow

        self._mlflow = mlflow
        if not any(name in os.environ for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")):
            mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=run_id, run_name=None if run_id else folder.resolve().name)
        self.run_id = run.info.run_id
        if run_id is None:
            mlflow.log_params({_allowed(name): str(value)[:500] for name, value in _flat(_plain(recipe)).items()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row."""
        self._mlflow.log_metrics({_allowed(name): value for name, value in values.items()}, step=step)

    def close(self, failed: bool) -> None:
        """Mark the run as finished or failed."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""Trackers by the name of their package, which is the value of ``--track``."""


def tracker_names(text: str) -> list[str]:
    """The names in the value of ``--track``, separated by commas; it may be empty."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def must_have_trackers(names: Sequence[str]) -> None:
    """Raise an error if a tracker cannot be used.

    Raises:
        UserError: one is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track {name}: no such tracker; there are {', '.join(TRACKERS)}.")
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--track {name}: {name} is not installed. Run: pip install {name}")


def trackers_of(folder: Path) -> list[str]:
    """The names of the trackers of the run in a folder."""
    return list(read_json(folder / FILE)) if (folder / FILE).is_file() else []


class Trackers:
    """The trackers of a run, as one monitor of the training loop.

    A tracker that fails during training is dropped with a warning: a server that is down is no reason to lose a run.

    Args:
        names: names of the trackers.
        folder: folder of the run.
        recipe: recipe of the run, as plain values.
        resume: continue each tracker's own record of the run.

    Raises:
        UserError: a tracker cannot start.
    """

    def __init__(self, names: Sequence[str], folder: Path, recipe: Mapping[str, Any], resume: bool = False):
        file = folder / FILE
        known: dict[str, str] = read_json(file) if resume and file.is_file() else {}
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                self._open[name] = TRACKERS[name](folder, recipe, known.get(name))
            except Exception as error:
                self.close(failed=True)
                raise UserError(f"--track {name}: it could not start ({error or type(error).__name__}).") from error
        if self._open or known:
            write_json(file, {name: tracker.run_id for name, tracker in self._open.items()})

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.close(failed=kind is not None)

    def step(self, step: int, row: Mapping[str, Any]) -> None:
        """Send the numbers of a row."""
        numbers = {name: value for name, value in row.items() if name != "step" and math.isfinite(value)}
        for name, tracker in list(self._open.items()):
            self._tell(name, tracker.log, step, numbers)

    def evaluated(self, step: int, row: Mapping[str, Any]) -> None:
        """Send the figures of an evaluation."""
        self.step(step, row)

    def close(self, failed: bool = False) -> None:
        """End the run in each tracker; ``failed`` if it stopped before it was done."""
        for name, tracker in list(self._open.items()):
            self._tell(name, tracker.close, failed)
        self._open.clear()

    def _tell(self, name: str, method: Callable[..., None], *arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:
            del self._open[name]
            reason = str(error) or type(error).__name__
            warnings.warn(
                f"--track {name}: failed ({reason}) and is dropped. metrics.jsonl has all rows.",
                TrackingNotice,
                stacklevel=4,
            )


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as JSON has it."""
    return json.loads(json.dumps(recipe, default=str))


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: value
        for key, inner in values.items()
        for name, value in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _allowed(name: str) -> str:
    """A name that MLflow takes. A store of files makes folders of slashes: ``loss`` and ``loss/text`` collide."""
    return re.sub(r"[^\w\-. :]", "_", name.replace("/", "."))
