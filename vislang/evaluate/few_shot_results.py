"""The results of a few-shot evaluation: its figures as JSON values, and its predictions in a file, which can be
scored again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from vislang.data.fields import field, one_of, whole_field
from vislang.data.problems import DataError
from vislang.evaluate.few_shot import Point, point_of
from vislang.evaluate.results import PREDICTIONS, scored_rows, write_predictions, write_submission
from vislang.evaluate.shots import Select, Setting, Trial, Variant
from vislang.example import Example, Prediction
from vislang.metrics.figure import figures_as_json
from vislang.metrics.variance import Spread
from vislang.tasks.files import each, read_lines
from vislang.tasks.task import Task, complete

FIELDS = (*Setting.__dataclass_fields__, *Trial._fields)
"""Entries of each prediction beside those of :meth:`~vislang.example.Prediction.as_record`."""


def as_record(point: Point) -> dict[str, Any]:
    """A point as JSON values. ``seeds`` has the mean figures of each draw over its orders."""
    found: dict[str, Any] = {
        **asdict(point.setting),
        "blind": point.setting.variant == "blind",
        "draws": len({trial.draw for trial in point.predictions}),
        "orders": point.orders,
        "figures": figures_as_json(point.means),
        "seeds": {str(draw): figures_as_json(figures) for draw, figures in point.draws.items()},
        "trials": [
            {**trial._asdict(), **{name: figure.as_json()["value"] for name, figure in figures.items()}}
            for trial, figures in point.figures.items()
        ],
    }
    if point.spread is not None:
        found["spread"] = {"metric": point.metric, **spread_as_json(point.spread)}
    if point.abstention is not None:
        found["abstention"] = point.abstention.as_json()
    return found


def shots_as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The ids of the shots of each setting and trial, in the order of the prompt."""
    return [
        {**asdict(point.setting), **trial._asdict(), "ids": ids}
        for point in points
        for trial, ids in point.shots.items()
    ]


def spread_as_json(spread: Spread) -> dict[str, Any]:
    """The mean and the standard deviations of a setting as JSON values."""
    sources = {name: getattr(spread, name) for name in ("draws", "orders", "questions")}
    return {
        "mean": spread.mean.as_json(),
        **{name: None if source is None else asdict(source) for name, source in sources.items()},
    }


def write_points(folder: Path, points: Sequence[Point], task: Task, queries: Sequence[Example]) -> None:
    """Write the predictions of all points with their settings and trials; and the benchmark's submission files, one for
    each plain setting and each draw.

    Args:
        folder: the folder; it is made if missing.
        points: the points.
        task: the task.
        queries: the queries, in the order of the predictions.
    """
    by_trial = [(point.setting, trial, own) for point in points for trial, own in point.predictions.items()]
    rows = [
        (prediction, {**asdict(setting), **trial._asdict(), **row})
        for setting, trial, predictions in by_trial
        for prediction, row in zip(predictions, scored_rows(task, queries, predictions), strict=True)
    ]
    write_predictions(folder / PREDICTIONS, rows)
    for setting, trial, predictions in by_trial:
        if setting.variant == "plain" and trial.order == 0:
            prefix = f"{setting.shots}-shots-{setting.select}-seed-{trial.draw}-"
            write_submission(folder, task, queries, predictions, prefix)


def holds_points(path: Path) -> bool:
    """Whether a file was written by :func:`write_points`."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return all(f'"{name}":' in first for name in ("id", "answer", *FIELDS))


def read_points(path: Path, task: Task, queries: Sequence[Example]) -> list[Point]:
    """The points of an evaluation, scored again from its predictions.

    Args:
        path: a file that :func:`write_points` wrote.
        task: the task.
        queries: the queries.

    Raises:
        DataError: the file has another format, or has missing, extra or duplicate predictions.
    """

    read = task.prediction_reader(queries)

    def row(record: Mapping[str, Any]) -> tuple[Setting, Trial, Prediction]:
        shots, draw, order = (whole_field(record, name) for name in ("shots", "draw", "order"))
        select = one_of(field(record, "select"), get_args(Select))
        variant = one_of(field(record, "variant"), get_args(Variant))
        return Setting(shots, select, variant), Trial(draw, order), read(record)  # type: ignore[arg-type]

    found: dict[Setting, dict[Trial, list[Prediction]]] = {}
    for setting, trial, prediction in each(path, read_lines(path), row):
        found.setdefault(setting, {}).setdefault(trial, []).append(prediction)
    for setting, by_trial in found.items():
        for trial, own in by_trial.items():
            name = f"{path}, {setting.shots} shots, {setting.variant}, draw {trial.draw}, order {trial.order}"
            by_trial[trial] = complete(task.ids(queries), own, name)
        draws, orders = ({trial[side] for trial in by_trial} for side in (0, 1))
        if len(by_trial) != len(draws) * len(orders):
            raise DataError(
                f"{path}: {setting.shots} shots, {setting.variant}: draws have different numbers of orders."
            )
    return [point_of(task, queries, setting, by_trial) for setting, by_trial in found.items()]
