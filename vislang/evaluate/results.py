"""The files of an evaluation: ``results.json``, ``predictions.jsonl`` and the submission file of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.evaluate.evaluation import Evaluation
from vislang.example import Example, Prediction
from vislang.files import write_text
from vislang.tasks.task import Task

PREDICTIONS, RESULTS = "predictions.jsonl", "results.json"


def write_evaluation(folder: Path, evaluation: Evaluation, task: Task, about: Mapping[str, Any]) -> None:
    """Write the files of an evaluation into a folder, each whole or not at all.

    Args:
        folder: it is created if it does not exist.
        evaluation: the evaluation.
        task: its task.
        about: further entries of ``results.json``: the model, the split, the environment.
    """
    write_predictions(folder / PREDICTIONS, ((prediction, {}) for prediction in evaluation.predictions))
    write_submission(folder, task, evaluation.examples, evaluation.predictions)
    write_results(folder, {**evaluation.as_json(), **about})


def write_submission(
    folder: Path, task: Task, examples: Sequence[Example], predictions: Sequence[Prediction], prefix: str = ""
) -> None:
    """Write the submission file of a benchmark, if it has one; its name begins with ``prefix``."""
    if (official := task.submission(examples, predictions)) is not None:
        name, content = official
        _write(folder / f"{prefix}{name}", content)


def write_predictions(path: Path, predictions: Iterable[tuple[Prediction, Mapping[str, Any]]]) -> None:
    """Write one JSON line for each prediction, with further entries."""
    lines = [json.dumps({**prediction.as_record(), **more}, allow_nan=False) for prediction, more in predictions]
    _write(path, "\n".join(lines) + "\n")


def write_results(folder: Path, values: Mapping[str, Any]) -> None:
    """Write ``results.json``."""
    _write(folder / RESULTS, json.dumps(values, indent=2, allow_nan=False, default=str) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
