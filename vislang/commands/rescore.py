"""``vislang eval FILE``: score a file of predictions without the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vislang.commands.few_shot import Page, rescore_points
from vislang.commands.options import given
from vislang.data.problems import DataError
from vislang.errors import UserError
from vislang.evaluate import card
from vislang.evaluate.abstain import abstention
from vislang.evaluate.evaluation import Evaluation, unread
from vislang.evaluate.few_shot_results import holds_points
from vislang.evaluate.results import RESULTS
from vislang.example import Example
from vislang.runs.folder import environment, read_json

NOW = ("task", "data", "scorer", "environment")
"""Entries of a card that are new where predictions are scored again."""

RECORDED = ("split", "limit", "seed")
"""Options that the results of an evaluation record."""


def rescore(options: Any, file: Path) -> int:
    """Score a file of predictions: the ``predictions.jsonl`` of an evaluation, or a benchmark's submission file;
    returns 0.

    Args:
        options: the command, an :class:`~vislang.commands.evaluate.Evaluate`. Without a task, it is read from
            ``results.json`` in the same folder.
        file: the file of predictions.

    Raises:
        UserError: the task is unknown, or the results would overwrite those of the file.
        DataError: the file has another format, or lacks predictions, or has predictions of other examples.
    """
    if options.out is not None and options.out.resolve() == file.resolve().parent:
        raise UserError(f"--out {options.out}: contains {file.name}, which is scored. Give another folder.")
    if options.task is None and options.data is None:
        options = recorded(options, file)
    task, examples, bad = options.opened_task()
    about = {"predictions": str(file), **options.about(task, bad)}

    def card_of(task: Any, examples: Sequence[Example], support: Sequence[Example]) -> dict[str, Any]:
        return rescored_card(file, card.card_of(task, examples, support, **own))

    own = {"model": {"source": str(file)}, "options": options.options(), "environment": environment()}
    if holds_points(file):
        page = options.report and Page(options.report, f"{task.name}: {file}", f"vislang eval {file}")
        return rescore_points(file, task, examples, about, card_of, options.out, options.json, options.abstain, page)
    examples = task.subset(examples, options.limit, options.seed)
    try:
        predictions = task.read_predictions(file, examples)
    except DataError as error:
        if not options.limit:
            raise
        drawn = f"--limit {options.limit} and --seed {options.seed} draw {len(examples)} records"
        raise DataError(f"{error} ({drawn}. Leave --limit out if the file has predictions for all.)") from None
    try:
        figures = task.score(examples, predictions)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    chosen = None if options.abstain is None else abstention(task, examples, [[predictions]], options.abstain)
    evaluation = Evaluation(
        task.name, "file", examples, predictions, figures, unread=unread(predictions), abstention=chosen
    )
    return options.finish(task, evaluation, about, card_of(task, examples, ()))


def rescored_card(file: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The card of predictions that are scored again: that of their evaluation, if there is one beside them, with the
    data, the scorer and the environment of now."""
    before = file.with_name(card.CARD)
    return {**card.read_card(before), **{n: made[n] for n in NOW}} if before.is_file() else made


def recorded(options: Any, file: Path) -> Any:
    """The options with the task, split, limit and seed from the ``results.json`` in the folder of the predictions.

    Raises:
        UserError: there is no such file, or it names no task.
    """
    results = file.with_name(RESULTS)
    if ignored := given(options, RECORDED):
        raise UserError(f"{ignored}: recorded in {results}. Leave it out, or give the --task, too.")
    if not results.is_file():
        raise UserError(f"{file}: give the --task of these predictions (there is no {RESULTS} in the same folder).")
    values: Any = read_json(results)
    if not isinstance(values, dict) or not isinstance(values.get("spec"), str):
        raise UserError(
            f"{results}: does not name a task. Give the --task of these predictions. (vislang report RUN shows the "
            "scores on examples that a run held out.)"
        )
    known = {name: values[name] for name in RECORDED if name in values}
    skip = options.skip_bad_records or bool(values.get("bad_records"))
    return replace(options, task=values["spec"], skip_bad_records=skip, **known)
