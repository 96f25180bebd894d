"""``vislang eval FILE``: score a file of predictions, without the model that made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislang.commands.few_shot import rescore_points
from vislang.errors import UserError
from vislang.evaluate.evaluation import Evaluation, unread
from vislang.evaluate.few_shot_results import holds_points
from vislang.evaluate.results import RESULTS
from vislang.runs.folder import read_json

if TYPE_CHECKING:
    from vislang.commands.evaluate import Evaluate

RECORDED = ("split", "limit", "seed")
"""Options that the results of an evaluation state."""


def rescore(options: Evaluate, file: Path) -> int:
    """Score a file of predictions: the one of an evaluation, or one in a benchmark's official format; returns 0.

    Args:
        options: of the command; without a task, they are those that ``results.json`` beside the file states.
        file: of the predictions.

    Raises:
        UserError: it is not known which task was answered, or the results would replace those of the file.
        DataError: the file is none of predictions, or they are not those of all examples.
    """
    if options.out is not None and options.out.resolve() == file.resolve().parent:
        raise UserError(f"--out {options.out}: holds {file.name}, which is scored; name another folder.")
    if options.task is None and options.data is None:
        options = recorded(options, file)
    task, examples, bad = options.opened_task()
    if holds_points(file):
        return rescore_points(options, file, task, examples, bad)
    examples = task.subset(examples, options.limit, options.seed)
    predictions = task.read_predictions(file, examples)
    figures = task.score(examples, predictions)
    evaluation = Evaluation(task.name, "file", examples, predictions, figures, unread=unread(predictions))
    return options.finish(task, evaluation, {"predictions": str(file), **options.about(task, bad)})


def recorded(options: Evaluate, file: Path) -> Evaluate:
    """The options with the task, the split and the draw that ``results.json`` beside a file of predictions states.

    Raises:
        UserError: there is none, or it does not say which task was answered.
    """
    results = file.with_name(RESULTS)
    options.must_be_default(RECORDED, f"{results} states it; leave it out, or name the --task too")
    if not results.is_file():
        raise UserError(f"{file}: name the --task that these predictions are of (there is no {RESULTS} beside it).")
    values: Any = read_json(results)
    if not isinstance(values, dict) or not isinstance(values.get("spec"), str):
        raise UserError(
            f"{results}: does not say which task was answered. Name the --task; the examples that a run held out are "
            "scored again by vislang report RUN."
        )
    stated = {name: values[name] for name in RECORDED if name in values}
    skip = options.skip_bad_records or bool(values.get("bad_records"))
    return replace(options, task=values["spec"], skip_bad_records=skip, **stated)
