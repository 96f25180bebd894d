"""Few-shot evaluation: how well a model does with so many examples in its prompt (Alayrac et al. 2022, section 4.2).

Shots are drawn at random, the same for all questions of a seed (they are then prefilled once for all of them), or
retrieved: those whose image is most similar to the question's, the most similar last (RICES, Yang et al. 2021). Zero
shots are two examples of text alone, as in the paper: they show the form of an answer, and no image.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Embeds, Generates, Prefills, Progress, Ranks
from vislang.document import Document, Medium
from vislang.errors import UserError
from vislang.evaluate.generate import generate
from vislang.evaluate.prefix import NOTHING, Prefix
from vislang.evaluate.rank import rank
from vislang.evaluate.retrieve import retrieve
from vislang.evaluate.ways import ways
from vislang.example import Answer, Example, Label, Prediction, Value, reference_text
from vislang.metrics.figure import Figure, Figures, share
from vislang.prompt import as_generation, shown
from vislang.tasks.retrieval import Retrieval
from vislang.tasks.task import Task

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
        blind: take all media away and keep their positions.
    """

    shots: int
    select: Literal["random", "retrieved"] = "random"
    orders: int = 1
    blind: bool = False


@dataclass(frozen=True)
class Point:
    """The figures of a setting.

    Attributes:
        setting: how the model was prompted.
        seeds: the figures of each seed.
        means: their means over seeds, with the interval that so many questions allow: seeds share the questions, so
            that more of them do not narrow it.
        predictions: what was answered, by seed.
    """

    setting: Setting
    seeds: dict[int, Figures]
    means: Figures
    predictions: dict[int, list[Prediction]] = field(default_factory=dict, repr=False)


def shots_of(examples: Sequence[Example]) -> list[Example]:
    """The examples that can stand before a question; see :func:`is_shot`."""
    return [example for example in examples if is_shot(example)]


def is_shot(example: Example) -> bool:
    """Whether an example has a template and an answer in words, so that it can stand before a question."""
    return not example.wording.verbatim and reference_text(as_generation(example)) is not None


def evaluate_point(
    model: Any,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    setting: Setting,
    seeds: Sequence[int],
    similarity: Float[Tensor, "queries support"] | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Point:
    """Ask every question, once a seed.

    Args:
        model: it generates or ranks, and prefills.
        task: scores the predictions.
        support: what shots are chosen from; examples that cannot be shots are passed over.
        queries: the questions; none of them is in the support.
        setting: how to prompt.
        seeds: of the shots, and of their order.
        similarity: of the questions' images to the support's, for retrieved shots; see :func:`similarities`.
        batch_size: questions at a time.
        progress: called with (questions asked, of how many).

    Raises:
        UserError: retrieved shots without ``similarity`` or for retrieval, several orders of a task whose answers are
            generated, or more shots than there are.
    """
    if setting.select == "retrieved" and setting.shots:
        if isinstance(task, Retrieval):
            raise UserError(f"{task.name}: all images share their shots, so these are drawn, not retrieved.")
        if similarity is None:
            raise UserError("retrieved shots need the similarity of images.")
    ranked = way_of(model, task) == "rank"
    if setting.orders > 1 and not ranked:
        raise UserError(f"{task.name}: answers are generated, and only ranked answers can be averaged over orders.")
    usable = [number for number, example in enumerate(support) if is_shot(example)]
    if (setting.shots or TEXT_SHOTS) > len(usable):
        raise UserError(
            f"{task.name}: {setting.shots} shots, and there are {len(usable)} examples to draw from (zero shots are "
            f"{TEXT_SHOTS} without their images)."
        )
    support = [support[number] for number in usable]
    similarity = None if similarity is None else similarity[:, usable]
    found: dict[int, Figures] = {}
    predictions: dict[int, list[Prediction]] = {}
    total = len(queries) * len(seeds)
    for number, seed in enumerate(seeds):
        rng = random.Random(f"{setting.shots} {seed}")

        def report(done: int, of: int, before: int = number * len(queries)) -> None:
            if progress is not None:
                progress(before + done, total)

        chosen = _Shots(support, setting, rng, similarity)
        answer = _ranked if ranked else _generated
        predictions[seed] = answer(model, task, queries, chosen, batch_size, report)
        found[seed] = task.score(queries, predictions[seed]) if task.can_score(queries) else {}
    return Point(setting, found, mean_figures(list(found.values())), predictions)


def way_of(model: Any, task: Task) -> Literal["rank", "generate"]:
    """Whether a model that is shown examples ranks the answers of a task or generates them.

    Raises:
        UserError: it can do neither with examples before a question.
    """
    if isinstance(model, Prefills):
        if isinstance(model, Ranks) and "rank" in (known := ways(model, task)):
            return "rank"
        if isinstance(model, Generates) and "generate" in known:
            return "generate"
    raise UserError(
        f"--shots: this {type(model).__name__} cannot be prompted with examples of {task.name}; give a Flamingo and a "
        "task whose answers it can generate or rank."
    )


class _Shots:
    """The shots of one seed: the same for all questions, or retrieved for each of them; the support has shots alone."""

    def __init__(
        self,
        support: Sequence[Example],
        setting: Setting,
        rng: random.Random,
        similarity: Float[Tensor, "queries support"] | None,
    ):
        self.setting, self.rng = setting, rng
        self.shared: list[list[Example]] | None = None
        self.own: list[list[list[Example]]] | None = None
        if setting.select == "random" or not setting.shots:
            drawn = rng.sample(list(support), setting.shots or TEXT_SHOTS)
            self.shared = self._orders(drawn if setting.shots else [_text_alone(shot) for shot in drawn])
        else:
            assert similarity is not None
            nearest = similarity.topk(setting.shots, dim=-1).indices.flip(-1).tolist()
            self.own = [self._orders([support[index] for index in row]) for row in nearest]

    def _orders(self, shots: list[Example]) -> list[list[Example]]:
        """The shots as they are, and shuffled as often as is wanted."""
        return [shots, *(self.rng.sample(shots, len(shots)) for _ in range(self.setting.orders - 1))]

    def prefixes(self, model: Any) -> list[Prefix]:
        """The shared shots as they are read, in each order; nothing where questions have shots of their own."""
        if self.shared is None:
            return [NOTHING]
        documents = [Document(model.prompts.examples(order)) for order in self.shared]
        documents = [document.without_media() if self.setting.blind else document for document in documents]
        return [Prefix(model.prefill(document), shown(document)) for document in documents]


def _ranked(
    model: Any, task: Task, queries: Sequence[Example], shots: _Shots, batch_size: int, progress: Progress
) -> list[Prediction]:
    if isinstance(task, Retrieval):
        return retrieve(model, task, queries, "rank", batch_size, progress, shots.prefixes(model))
    return rank(
        model,
        queries,
        task.labels,
        blind=shots.setting.blind,
        shots=shots.own,
        prefixes=shots.prefixes(model),
        batch_size=batch_size,
        progress=progress,
    )


def _generated(
    model: Any, task: Task, queries: Sequence[Example], shots: _Shots, batch_size: int, progress: Progress
) -> list[Prediction]:
    (prefix,) = shots.prefixes(model)
    return generate(
        model,
        queries,
        task.labels,
        blind=shots.setting.blind,
        shots=None if shots.own is None else [own[0] for own in shots.own],
        prefix=prefix,
        batch_size=batch_size,
        progress=progress,
    )


def _text_alone(shot: Example) -> Example:
    """A shot without its media, and without their positions."""
    shot = as_generation(shot)
    parts = [part for part in shot.prompt.parts if not isinstance(part, Medium)]
    return replace(shot, prompt=Document(parts, name=shot.prompt.name))


def similarities(
    model: Embeds, queries: Sequence[Example], support: Sequence[Example], progress: Progress | None = None
) -> Float[Tensor, "queries support"]:
    """Cosine similarities of the questions' images and those of the support, each image embedded once.

    Raises:
        UserError: an example without an image or video.
    """
    sides = []
    for side in (queries, support):
        for example in side:
            if not example.prompt.media:
                raise UserError(f"{example.name}: no image in its prompt, so that no shots can be retrieved by it.")
        sides.append([example.prompt.media[-1] for example in side])
    distinct = list(dict.fromkeys(medium for side in sides for medium in side))
    documents = [Document([medium]) for medium in distinct]  # type: ignore[list-item]
    vectors = torch.nn.functional.normalize(model.embed(documents, progress=progress), dim=-1)
    row = dict(zip(distinct, vectors, strict=True))
    asked, known = (torch.stack([row[medium] for medium in side]) for side in sides)
    return asked @ known.t()


def baselines(
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    similarity: Float[Tensor, "queries support"] | None = None,
) -> dict[str, Figures]:
    """Figures of what needs no prompt: the most frequent answer, and the answer of the most similar image.

    None for retrieval, whose ranks cannot be guessed, and where queries have no targets.
    """
    if isinstance(task, Retrieval) or not task.can_score(queries):
        return {}
    answers = [plain_answer(example) for example in support]
    known = [answer for answer in answers if answer is not None]
    found: dict[str, list[Answer]] = {}
    if known:
        found["most_frequent_answer"] = [Counter(known).most_common(1)[0][0]] * len(queries)
    if known and similarity is not None:
        found["answer_of_the_most_similar_image"] = [answers[index] for index in similarity.argmax(dim=-1).tolist()]
    return {
        name: task.score(queries, [Prediction(q.id, a) for q, a in zip(queries, answers, strict=True)])
        for name, answers in found.items()
    }


def plain_answer(example: Example) -> Answer:
    """The right answer as a prediction gives it; None where it holds for its own example alone, as an index does."""
    if isinstance(example.target, Label):
        return example.target.name
    if isinstance(example.target, Value):
        return example.target.number
    return None if example.choices else reference_text(example)


def mean_figures(scored: Sequence[Figures]) -> Figures:
    """Means over seeds; the interval of a share is that of the mean share, of others the mean of their ends.

    ``answered`` is stated where a prediction lacks a number; of other seeds it is 1.
    """
    means: Figures = {}
    for name, first in {name: figure for figures in scored for name, figure in figures.items()}.items():
        values = [figures.get(name, share(first.n, first.n)) for figures in scored]
        value = sum(figure.value for figure in values) / len(values)
        if first.low is None:
            means[name] = Figure(value, None, None, first.n)
        elif 0 <= first.value <= 1 and first == share(first.value * first.n, first.n):
            means[name] = share(value * first.n, first.n)
        else:
            low, high = (sum(getattr(figure, end) for figure in values) / len(values) for end in ("low", "high"))
            means[name] = Figure(value, low, high, first.n)
    return means
