"""The results of a few-shot evaluation: its figures as JSON values, and its predictions in a file, which can be
scored again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vislang.evaluate.few_shot import Point, Setting, mean_figures
from vislang.evaluate.results import PREDICTIONS, write_predictions, write_submission
from vislang.example import Example, Prediction, prediction_from
from vislang.metrics.figure import figures_as_json
from vislang.tasks.files import each, read_lines
from vislang.tasks.task import Task, complete

FIELDS = tuple(Setting.__dataclass_fields__)


def as_record(point: Point) -> dict[str, Any]:
    """A point as JSON values."""
    return {
        "shots": point.setting.shots,
        "select": point.setting.select,
        "orders": point.setting.orders,
        "blind": point.setting.blind,
        "figures": figures_as_json(point.means),
        "seeds": {str(seed): figures_as_json(figures) for seed, figures in point.seeds.items()},
    }


def write_points(folder: Path, points: Sequence[Point], task: Task, queries: Sequence[Example]) -> None:
    """Write the predictions of all points with their settings and seeds; and the benchmark's submission files, one for
    each setting with images and each seed.

    Args:
        folder: the folder; it is made if missing.
        points: the points.
        task: the task.
        queries: the queries, in the order of the predictions.
    """
    by_seed = [(point.setting, seed, own) for point in points for seed, own in point.predictions.items()]
    rows = [(p, {**asdict(setting), "seed": seed}) for setting, seed, predictions in by_seed for p in predictions]
    write_predictions(folder / PREDICTIONS, rows)
    for setting, seed, predictions in by_seed:
        if not setting.blind:
            prefix = f"{setting.shots}-shots-{setting.select}-seed-{seed}-"
            write_submission(folder, task, queries, predictions, prefix)


def holds_points(path: Path) -> bool:
    """Whether a file was written by :func:`write_points`."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return all(f'"{name}":' in first for name in ("id", "answer", "seed", *FIELDS))


def read_points(path: Path, task: Task, queries: Sequence[Example]) -> list[Point]:
    """The points of an evaluation, scored again from its predictions.

    Args:
        path: a file that :func:`write_points` wrote.
        task: the task.
        queries: the queries.

    Raises:
        DataError: the file has another format, or has missing, extra or duplicate predictions.
    """

    def row(record: Mapping[str, Any]) -> tuple[Setting, int, Prediction]:
        setting = Setting(**{name: record[name] for name in FIELDS})
        return setting, int(record["seed"]), prediction_from(record)

    found: dict[Setting, dict[int, list[Prediction]]] = {}
    for setting, seed, prediction in each(path, read_lines(path), row):
        found.setdefault(setting, {}).setdefault(seed, []).append(prediction)
    points = []
    for setting, by_seed in found.items():
        for seed, own in by_seed.items():
            by_seed[seed] = complete(task.ids(queries), own, f"{path}, {setting.shots} shots, seed {seed}")
        figures = {seed: task.score(queries, own) for seed, own in by_seed.items()}
        points.append(Point(setting, figures, mean_figures(list(figures.values())), by_seed))
    return points
