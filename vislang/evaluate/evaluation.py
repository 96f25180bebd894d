"""Evaluation: a model answers the examples of a task, and the task scores the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from vislang.capabilities import Prefix, Progress
from vislang.errors import UserError, needs
from vislang.evaluate.abstain import Abstention, abstention
from vislang.evaluate.decide import decide
from vislang.evaluate.figure_rows import figure_rows
from vislang.evaluate.generate import generate
from vislang.evaluate.loss import reference_perplexity
from vislang.evaluate.match import match, pool_of
from vislang.evaluate.prefix import NOTHING, read
from vislang.evaluate.rank import rank
from vislang.evaluate.retrieve import retrieve
from vislang.evaluate.ways import WAYS, Way, cell, ways, why_not
from vislang.example import Example, Prediction
from vislang.metrics.figure import SCHEMA, Figures, figures_as_json
from vislang.notebook import table
from vislang.tasks.retrieval import Retrieval
from vislang.tasks.task import Task

Reporter = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress display with a title."""


DOING: dict[Way, str] = {
    "generate": "generating",
    "rank": "ranking",
    "decide": "deciding",
    "match": "matching",
    "embed": "embedding",
}
"""The title of the progress display for each way of answering."""


@contextmanager
def quietly(what: str) -> Iterator[Progress]:
    """A progress display that shows nothing."""
    yield lambda done, total: None


@dataclass(frozen=True)
class Evaluation:
    """The result of a model on a task.

    Attributes:
        task: name of the task.
        way: how the model answered; ``file`` if the predictions were read from a file.
        examples, predictions: the examples and their predictions, in the same order. For retrieval there is a
            prediction for each text and each image.
        figures: the scores; empty if the examples have no targets.
        blind: the scores with all media removed; empty if this way of answering needs media.
        guesses: the scores of baselines without media, by name.
        perplexity: perplexity of the references, for a model that gives likelihoods.
        unread: number of predictions without a usable answer, such as a text without a number for a value.
        abstention: when to answer, if that was asked.
    """

    task: str
    way: Way | Literal["file"]
    examples: list[Example]
    predictions: list[Prediction]
    figures: Figures
    blind: Figures = field(default_factory=dict)
    guesses: dict[str, Figures] = field(default_factory=dict)
    perplexity: float | None = None
    unread: int = 0
    abstention: Abstention | None = None

    def as_json(self) -> dict[str, Any]:
        """The evaluation as JSON values, without its predictions."""
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "task": self.task,
            "way": self.way,
            "n": len(self.examples),
            "figures": figures_as_json(self.figures),
        }
        if self.blind:
            values["blind"] = figures_as_json(self.blind)
        if self.guesses:
            values["guesses"] = {name: figures_as_json(figures) for name, figures in self.guesses.items()}
        if self.perplexity is not None:
            values["reference_perplexity"] = self.perplexity
        if self.unread:
            values["unread"] = self.unread
        if self.abstention is not None:
            values["abstention"] = self.abstention.as_json()
        return values

    def _repr_html_(self) -> str:
        """The figures in a notebook."""
        headings = ("task", "answers by", "metric", "value", "95 % interval")
        return table(f"{len(self.examples):,} examples", headings, figure_rows({self.task: self.as_json()}))


def evaluate(
    model: Any,
    task: Task,
    examples: Sequence[Example],
    support: Sequence[Example] = (),
    *,
    way: Way | None = None,
    head: str | None = None,
    with_blind: bool = True,
    with_perplexity: bool = True,
    batch_size: int | None = None,
    abstain: float | None = None,
    prefix: Prefix = NOTHING,
    reporter: Reporter = quietly,
) -> Evaluation:
    """Score a model on examples of a task.

    Args:
        model: a model.
        task: the task.
        examples: the examples to answer.
        support: examples with known answers: captions to choose from, data for a classifier on embeddings, and for the
            baselines.
        way: how to answer; None takes the best way that the model has.
        head: which of the model's heads to use.
        with_blind: also score the model with all media removed, if it generates or ranks.
        with_perplexity: also compute the perplexity of the references, if the model generates.
        batch_size: examples at a time; None takes a default. It does not change the result.
        abstain: the largest share of given answers that may be wrong; finds the confidence from which on to answer.
        prefix: examples that precede every prompt, for a model that generates or ranks.
        reporter: shows progress.

    Raises:
        UserError: the model cannot answer this task, or not in this way.
    """
    way = way or way_of(model, task)
    if way == "embed":
        needs("sklearn", "eval", "a classifier on embeddings")
    examples = list(examples)
    task.must_be_answerable(examples)
    prepare(model, examples, reporter)
    answered = _answer(model, task, examples, support, way, head, batch_size, reporter, prefix, blind=False)
    must_be_numbers(answered)
    blind: Figures = {}
    blindable = way in ("generate", "rank") and task.kind != "pairs"
    scored = task.can_score(examples)
    if scored and with_blind and blindable and any(example.media for example in examples):
        unseen = prefix if prefix.is_empty else read(model, prefix.document.without_media())
        taken = _answer(model, task, examples, support, way, head, batch_size, reporter, unseen, blind=True)
        blind = task.score(examples, taken)
    return Evaluation(
        task.name,
        way,
        examples,
        answered,
        task.score(examples, answered) if scored else {},
        blind,
        task.guesses(support, examples) if scored else {},
        reference_perplexity(model, examples) if way == "generate" and with_perplexity and prefix.is_empty else None,
        unread(answered),
        abstention(task, examples, [[answered]], abstain) if scored and abstain is not None else None,
    )


def unread(predictions: Sequence[Prediction]) -> int:
    """The number of predictions without an answer."""
    return sum(prediction.answer is None for prediction in predictions)


def way_of(model: Any, task: Task) -> Way:
    """How a model answers a task.

    Raises:
        UserError: it cannot; the message names both sides and the reason.
    """
    found = cell(model, task)
    if found.way is None:
        raise UserError(why_not(model, task))
    return found.way


def must_have_way(model: Any, task: Task, way: Way) -> None:
    """Raise an error if a model cannot answer a task in this way.

    Raises:
        UserError: it cannot; the message lists the ways that it has.
    """
    if way not in (known := ways(model, task)):
        have = ", ".join(known) or "none"
        raise UserError(
            f"--way {way}: a {type(model).__name__} can answer {task.name} by: {have}. In general, such a task can be "
            f"answered by: {', '.join(WAYS[task.kind])}."
        )


def must_be_numbers(predictions: Sequence[Prediction]) -> None:
    """Check that no score is NaN.

    Raises:
        UserError: one is; the message names the record.
    """
    for prediction in predictions:
        numbers = [prediction.answer] if isinstance(prediction.answer, float) else prediction.scores
        if any(math.isnan(number) for number in numbers):
            raise UserError(f"{prediction.id}: the model's scores are NaN; its weights are damaged.")


def prepare(model: Any, examples: Sequence[Example], reporter: Reporter = quietly) -> None:
    """Encode and cache the media of examples, if the model has a cache."""
    if hasattr(model, "prepare"):
        with reporter("encoding media") as progress:
            model.prepare([example.without_target() for example in examples], progress)


def _answer(
    model: Any,
    task: Task,
    examples: list[Example],
    support: Sequence[Example],
    way: Way,
    head: str | None,
    batch_size: int | None,
    reporter: Reporter,
    prefix: Prefix,
    blind: bool,
) -> list[Prediction]:
    size: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    with reporter(f"{DOING[way]}{', blind' if blind else ''}") as progress:
        if isinstance(task, Retrieval):
            return retrieve(model, task, examples, way, progress=progress, prefix=prefix, **size)
        if way == "generate":
            return generate(model, examples, task.labels, blind=blind, prefix=prefix, progress=progress, **size)
        if way == "rank":
            return rank(model, examples, task.labels, blind=blind, prefix=prefix, progress=progress, **size)
        if way == "decide":
            return decide(model, examples, head, progress=progress, **size)
        if way == "match":
            return match(model, examples, task.labels, pool_of(support), progress=progress, **size)
        from vislang.evaluate.probe import classify_embeddings

        return classify_embeddings(model, task, support, examples, progress=progress, **size)
