"""Few-shot evaluation: how well a model does, shown so many examples in its prompt (Alayrac et al. 2022, section 4.2).

Shots are drawn at random, the same for all questions of a seed (they are then read once for all of them), or retrieved:
those whose image is most like the question's, the most similar last (RICES, Yang et al. 2021). Zero shots are two
examples of words alone, as in the paper: they tell the form of an answer, and show nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Embeds, FewShot, Progress
from vislang.data.example import Example
from vislang.document import Document
from vislang.evaluate.answering import shots_of
from vislang.prompt import Shot
from vislang.tasks.answers import Proportion, proportion
from vislang.tasks.few_shot import FewShotTask, Figures, Mean

TEXT_SHOTS = 2
"""Examples without images that stand for zero shots."""


@dataclass(frozen=True)
class Setting:
    """How a model is prompted.

    Attributes:
        shots: examples in the prompt.
        select: how they are chosen.
        orders: prompts with the shots in so many orders, whose likelihoods are averaged (section B.1.5); for tasks
            whose answers are ranked.
        blind: take all media away, and leave their places.
    """

    shots: int
    select: Literal["random", "retrieved"] = "random"
    orders: int = 1
    blind: bool = False


@dataclass(frozen=True)
class Point:
    """A setting's figures: of each seed, and their means with an interval."""

    setting: Setting
    seeds: dict[int, dict[str, float]]
    means: dict[str, Mean]
    queries: int


def evaluate_point(
    model: FewShot,
    task: FewShotTask,
    setting: Setting,
    seeds: Sequence[int],
    likeness: Float[Tensor, "queries support"] | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 20,
    progress: Progress | None = None,
) -> Point:
    """Ask every question, once a seed.

    Args:
        model: it reads examples and goes on from there.
        task: what to ask.
        setting: how.
        seeds: of the shots, and of their order.
        likeness: of the questions' images to the support's, for retrieved shots; see :func:`likeness_of`.
        batch_size: questions at a time.
        max_new_tokens: longest answer.
        progress: called with (questions asked, of how many).

    Raises:
        ValueError: retrieved shots without ``likeness``, several orders of a task whose answers are written, or more
            shots than there are.
    """
    if setting.select == "retrieved" and setting.shots and likeness is None:
        raise ValueError("retrieved shots need the likeness of images.")
    if setting.orders > 1 and not task.options:
        raise ValueError(f"{task.name}: answers are written, and only ranked answers can be averaged over orders.")
    if setting.shots > len(task.support):
        raise ValueError(f"{task.name}: {setting.shots} shots, and there are {len(task.support)} to draw from.")
    found: dict[int, dict[str, float]] = {}
    scored: list[Figures] = []
    total = len(task.queries) * len(seeds)
    for number, seed in enumerate(seeds):
        prompted = _Prompted(model, task, setting, random.Random(f"{setting.shots} {seed}"), likeness)
        predictions: list[str] = []
        for start in range(0, len(task.queries), batch_size):
            chosen = range(start, min(start + batch_size, len(task.queries)))
            predictions += prompted.answers(chosen, max_new_tokens)
            if progress is not None:
                progress(number * len(task.queries) + len(predictions), total)
        figures = task.score(predictions, task.queries)
        scored.append(figures)
        found[seed] = {name: value if isinstance(value, float) else value.value for name, value in figures.items()}
    return Point(setting, found, _means(scored), len(task.queries))


class _Prompted:
    """A model with its shots for one seed: those that all questions share are read once."""

    def __init__(
        self,
        model: FewShot,
        task: FewShotTask,
        setting: Setting,
        chance: random.Random,
        likeness: Float[Tensor, "queries support"] | None,
    ):
        self.model, self.task, self.setting, self.chance = model, task, setting, chance
        self.likeness = likeness if setting.select == "retrieved" and setting.shots else None
        self.begun: list[Any] = []
        if self.likeness is None:
            shots = shots_of(chance.sample(list(task.support), setting.shots or TEXT_SHOTS))
            if not setting.shots:
                shots = [Shot(None, shot.answer, shot.question) for shot in shots]
            for order in self._orders(shots):
                self.begun.append(model.read(self._seen(Document(model.prompts.examples(order)))))

    def _orders(self, shots: list[Shot]) -> list[list[Shot]]:
        """The shots as they are, and shuffled as often as is wanted."""
        orders = [shots]
        for _ in range(self.setting.orders - 1):
            orders.append(self.chance.sample(shots, len(shots)))
        return orders

    def _seen(self, document: Document) -> Document:
        return document.without_media() if self.setting.blind else document

    def answers(self, chosen: Sequence[int], max_new_tokens: int) -> list[str]:
        """The answers to some of the questions."""
        queries = [self.task.queries[place] for place in chosen]
        if self.likeness is None:
            ways = [([query.prompt(self.model.prompts) for query in queries], begun) for begun in self.begun]
        else:
            nearest = self.likeness[list(chosen)].topk(self.setting.shots, dim=-1).indices.flip(-1).tolist()
            orders = [self._orders(shots_of([self.task.support[place] for place in row])) for row in nearest]
            ways = [
                ([q.prompt(self.model.prompts, own[way]) for q, own in zip(queries, orders, strict=True)], None)
                for way in range(self.setting.orders)
            ]
        if not self.task.options:
            ((prompts, begun),) = ways
            seen = [self._seen(prompt) for prompt in prompts]
            return self.model.generate(seen, max_new_tokens, len(seen), after=begun)
        likely = torch.zeros(len(queries), len(self.task.options))
        for prompts, begun in ways:
            seen = [self._seen(prompt) for prompt in prompts]
            ranked = self.model.rank(seen, self.task.options, len(seen), after=begun)
            likely += torch.tensor([[score.log_likelihood for score in own] for own in ranked]) / len(ways)
        return [self.task.options[place] for place in likely.argmax(dim=-1).tolist()]


def likeness_of(model: Embeds, task: FewShotTask, progress: Progress | None = None) -> Float[Tensor, "queries support"]:
    """Cosine similarities of the questions' images and those of the support, each image embedded once."""
    sides = [[example.image for example in side] for side in (task.queries, task.support)]
    distinct = list(dict.fromkeys(image for side in sides for image in side if image is not None))
    vectors = torch.nn.functional.normalize(model.embed([Document([i]) for i in distinct], progress=progress), dim=-1)
    row = dict(zip(distinct, vectors, strict=True))
    asked, known = (torch.stack([row[image] for image in side if image is not None]) for side in sides)
    return asked @ known.t()


def nearest_answers(task: FewShotTask, likeness: Float[Tensor, "queries support"]) -> list[str]:
    """The answer of the most similar image: a baseline without a language model."""
    return [task.support[place].target for place in likeness.argmax(dim=-1).tolist()]


def most_frequent(examples: Sequence[Example]) -> str:
    """The answer that is given most often: a baseline that does not look."""
    return Counter(example.target for example in examples).most_common(1)[0][0]


def _means(scored: Sequence[Figures]) -> dict[str, Mean]:
    """Over seeds, with the interval that so many questions allow: seeds share the questions, so more of them do not
    narrow it."""
    means = {}
    for name, first in scored[0].items():
        values = [figures[name] for figures in scored]
        if isinstance(first, Proportion):
            share = sum(v.value for v in values if isinstance(v, Proportion)) / len(values)
            whole = proportion(share * first.n, first.n)
            means[name] = Mean(whole.value, whole.low, whole.high)
        elif isinstance(first, Mean):
            bounds = [(v.value, v.low, v.high) for v in values if isinstance(v, Mean)]
            means[name] = Mean(*(sum(side) / len(bounds) for side in zip(*bounds, strict=True)))
        else:
            value = sum(v for v in values if isinstance(v, float)) / len(values)
            means[name] = Mean(value, value, value)
    return means
