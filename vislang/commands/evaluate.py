"""``vislang eval``: score a saved model on a task or on a user's file."""

from __future__ import annotations

import json
import random

from vislang.capabilities import Generates, Scores, Trainable
from vislang.console import console, reporting
from vislang.evaluate.answering import answer, perplexity
from vislang.models.loading import load_generating
from vislang.tasks.data_sets import evaluation_examples


def evaluate(source: str, data: str, limit: int, seed: int, skip_bad_records: bool, as_json: bool) -> int:
    """Print the score; returns the exit status.

    With ``limit`` the examples are drawn by ``seed``, not the first ones of the file, which may be alike.
    """
    problems: list = []
    with reporting("checking records") as report:
        examples = evaluation_examples(data, skip_bad_records, problems, report)
    if limit and limit < len(examples):
        examples = random.Random(seed).sample(examples, limit)
    model = load_generating(source)
    assert isinstance(model, Generates)
    assert isinstance(model, Scores)
    assert isinstance(model, Trainable)
    with reporting("encoding images") as report:
        model.prepare([example.prompt(model.prompts) for example in examples], report)
    with reporting("answering") as report:
        answered = answer(model, examples, progress=report)
    with reporting("answering blind") as report:
        blind = answer(model, examples, blind=True, progress=report)
    score = {
        "model": source,
        "task": data,
        "n": len(examples),
        "bad_records": len(problems),
        "accuracy": answered.accuracy.value,
        "accuracy_low": answered.accuracy.low,
        "accuracy_high": answered.accuracy.high,
        "blind_accuracy": blind.accuracy.value,
        "reference_perplexity": perplexity(model, examples, model.prompts),
    }
    if as_json:
        print(json.dumps(score))
        return 0
    if problems:
        console.print(f"left out {len(problems)} bad records")
    console.print(f"{data}: [bold]{answered.accuracy}[/bold] of {len(examples):,} answers equal a reference")
    console.print(f"images taken away: {blind.accuracy}")
    console.print(f"perplexity of the references: {score['reference_perplexity']:.3f} a token")
    return 0
