"""The files of an evaluation: ``results.json``, ``predictions.jsonl``, ``card.json`` and the submission file of a
benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.evaluate.card import completed, write_card
from vislang.evaluate.evaluation import Evaluation
from vislang.example import Example, Prediction
from vislang.files import write_text
from vislang.tasks.task import Task

PREDICTIONS, RESULTS = "predictions.jsonl", "results.json"


def write_evaluation(
    folder: Path, evaluation: Evaluation, task: Task, about: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Write the files of an evaluation into a folder, each whole or not at all.

    Args:
        folder: it is created if it does not exist.
        evaluation: the evaluation.
        task: its task.
        about: further entries of ``results.json``: the model, the split, the environment.
        card: its score card, from :func:`card_after`.
    """
    rows = scored_rows(task, evaluation.examples, evaluation.predictions)
    write_predictions(folder / PREDICTIONS, zip(evaluation.predictions, rows, strict=True))
    write_submission(folder, task, evaluation.examples, evaluation.predictions)
    write_results(folder, {**evaluation.as_json(), **about})
    write_card(folder, card)


def card_after(evaluation: Evaluation, task: Task, card: Mapping[str, Any]) -> dict[str, Any]:
    """The score card of a finished evaluation.

    Args:
        evaluation: the evaluation.
        task: its task.
        card: the score card before the model ran; see :func:`vislang.evaluate.card.card_of`.
    """
    media = [medium for example in evaluation.examples for medium in example.media]
    metric = task.score_each(evaluation.examples, evaluation.predictions).metric if evaluation.figures else ""
    return completed(card, evaluation.way, evaluation.predictions, metric, media)


def scored_rows(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The entries with which predictions can be compared one by one: the ``score``, whether the answer is ``right``,
    and the ``cluster``, which predictions about one image share. Empty entries for examples without targets."""
    if not task.can_score(examples):
        return [{} for _ in predictions]
    items = task.score_each(examples, predictions)
    rows: list[dict[str, Any]] = [
        {"score": float(score), "cluster": cluster}
        for score, cluster in zip(items.scores, task.clusters(examples), strict=True)
    ]
    if items.right is not None:
        rows = [{**row, "right": bool(right)} for row, right in zip(rows, items.right, strict=True)]
    return rows


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
