"""Few-shot evaluation: a model is scored with several examples (shots) in its prompt (Alayrac et al. 2022, section
4.2).

Shots are drawn at random or retrieved. Random shots are the same for all queries of a seed, so they are prefilled once.
Retrieved shots are those whose images are most similar to the query's image, the most similar last (RICES, Yang et al.
2021). "Zero shots" are two examples without their images, as in the paper: they show the form of an answer.
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
from vislang.evaluate.evaluation import Reporter, prepare, quietly
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
"""Number of examples without images in a zero-shot prompt."""

Select = Literal["random", "retrieved"]


@dataclass(frozen=True)
class Setting:
    """How a model is prompted.

    Attributes:
        shots: number of examples in the prompt.
        select: how they are chosen.
        orders: number of orders of the shots over which likelihoods are averaged (section B.1.5); only for tasks whose
            answers are ranked.
        blind: remove all media and keep their positions.
    """

    shots: int
    select: Select = "random"
    orders: int = 1
    blind: bool = False


@dataclass(frozen=True)
class Point:
    """The figures of a setting.

    Attributes:
        setting: how the model was prompted.
        seeds: the figures of each seed.
        means: means over seeds, with the interval over queries. All seeds share the queries, so more seeds do not
            narrow it.
        predictions: the predictions of each seed.
    """

    setting: Setting
    seeds: dict[int, Figures]
    means: Figures
    predictions: dict[int, list[Prediction]] = field(default_factory=dict, repr=False)


def shots_of(examples: Sequence[Example]) -> list[Example]:
    """The examples that can serve as shots; see :func:`is_shot`."""
    return [example for example in examples if is_shot(example)]


def is_shot(example: Example) -> bool:
    """Whether an example can serve as a shot: it has a template and an answer in words."""
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
    """Answer every query once for each seed, and score the answers.

    Args:
        model: it generates or ranks, and prefills.
        task: scores the predictions.
        support: examples that shots are chosen from; those that cannot serve as shots are ignored.
        queries: examples to answer; none of them is in the support.
        setting: how to prompt.
        seeds: seeds of the shots and of their order.
        similarity: for retrieved shots, how similar the images of queries and support are; see :func:`similarities`.
        batch_size: queries at a time.
        progress: called with (queries done, all queries).

    Raises:
        UserError: retrieved shots without ``similarity`` or for a retrieval task, several orders for a task whose
            answers are generated, or fewer examples than shots.
    """
    if setting.select == "retrieved" and setting.shots:
        if isinstance(task, Retrieval):
            raise UserError(f"{task.name}: all images share the same shots; use --select random.")
        if similarity is None:
            raise UserError("retrieved shots need the similarity of images.")
    ranked = way_of(model, task) == "rank"
    if setting.orders > 1 and not ranked:
        raise UserError(f"--orders: answers to {task.name} are generated; only ranked answers can be averaged.")
    usable = [number for number, example in enumerate(support) if is_shot(example)]
    if (setting.shots or TEXT_SHOTS) > len(usable):
        raise UserError(
            f"{task.name} has {len(usable)} examples that can serve as shots, and {setting.shots or TEXT_SHOTS} are "
            f"needed (zero shots are {TEXT_SHOTS} examples without images)."
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


def settings_for(shots: Sequence[int], select: Sequence[Select], orders: int = 1) -> list[Setting]:
    """The settings of a few-shot curve: each number of shots with each selection, and random shots without images.

    Zero shots need no selection and are measured once.
    """
    chosen = [
        Setting(number, way, orders if number > 1 else 1) for way in select for number in sorted(set(shots)) if number
    ]
    none = [Setting(0)] if 0 in shots else []
    return [*none, *chosen, *(Setting(number, blind=True) for number in sorted(set(shots)))]


def measure(
    model: Any,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    settings: Sequence[Setting],
    seeds: int,
    selector: Any = None,
    reporter: Reporter = quietly,
) -> tuple[list[Point], dict[str, Figures]]:
    """Score a model in several settings.

    Args:
        model, task, support, queries: see :func:`evaluate_point`.
        settings: how to prompt.
        seeds: how often random shots are drawn.
        selector: the model that compares images for retrieved shots; None takes ``model`` itself.
        reporter: shows progress.

    Returns:
        A point for each setting, and the figures of :func:`baselines`.

    Raises:
        UserError: see :func:`evaluate_point`; or ``selector`` gives no vectors, or has nothing to compare.
    """
    comparer = model if selector is None else selector
    if not isinstance(comparer, Embeds):
        raise UserError(f"--selector: a {type(comparer).__name__} gives no vectors, so it cannot compare images.")
    retrieves = any(setting.select == "retrieved" for setting in settings)
    # Random shots need no comparison. The baseline "most similar image" does, if every prompt has an image.
    with_images = all(example.prompt.media for example in (*queries, *support))
    compares = retrieves or (way_of(model, task) == "generate" and with_images)
    if selector is not None and not compares:
        raise UserError("--selector: random shots are not compared. Add --select retrieved, or leave it out.")
    prepare(model, [*queries, *support] if compares else queries, reporter)
    similarity = None
    if compares:
        with reporter("comparing images") as progress:
            similarity = similarities(comparer, queries, support, progress)
    points = []
    for setting in settings:
        # Retrieved shots are the same for every seed, unless their orders are drawn.
        repeats = 1 if setting.select == "retrieved" and setting.orders == 1 else seeds
        with reporter(f"{setting.shots} shots, {selection(setting)}") as progress:
            points.append(
                evaluate_point(
                    model, task, support, queries, setting, list(range(repeats)), similarity, progress=progress
                )
            )
    return points, baselines(task, support, queries, similarity)


def selection(setting: Setting) -> str:
    """How shots are chosen, for a table."""
    orders = f", mean of {setting.orders} orders" if setting.orders > 1 else ""
    return f"{setting.select}{orders}{', without images' if setting.blind else ''}"


def way_of(model: Any, task: Task) -> Literal["rank", "generate"]:
    """Whether a model that is prompted with examples ranks the answers of a task or generates them.

    Raises:
        UserError: it can do neither.
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
    """The shots of one seed: either ``shared`` by all queries, or each query's ``own`` (retrieved); in each order."""

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
            self.shared = self._orders(drawn if setting.shots else [_without_images(shot) for shot in drawn])
        else:
            assert similarity is not None
            nearest = similarity.topk(setting.shots, dim=-1).indices.flip(-1).tolist()
            self.own = [self._orders([support[index] for index in row]) for row in nearest]

    def _orders(self, shots: list[Example]) -> list[list[Example]]:
        """The shots in the order given, then shuffled for each further order."""
        return [shots, *(self.rng.sample(shots, len(shots)) for _ in range(self.setting.orders - 1))]

    def prefixes(self, model: Any) -> list[Prefix]:
        """The shared shots as the model reads them, in each order; nothing if each query has its own shots."""
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


def _without_images(shot: Example) -> Example:
    """A shot without its media and their positions."""
    shot = as_generation(shot)
    parts = [part for part in shot.prompt.parts if not isinstance(part, Medium)]
    return replace(shot, prompt=Document(parts, name=shot.prompt.name))


def similarities(
    model: Embeds, queries: Sequence[Example], support: Sequence[Example], progress: Progress | None = None
) -> Float[Tensor, "queries support"]:
    """Cosine similarities of the queries' images and the support's images; each image is embedded once.

    Raises:
        UserError: an example has no image or video.
    """
    sides = []
    for side in (queries, support):
        for example in side:
            if not example.prompt.media:
                raise UserError(f"{example.name}: its prompt has no image, so no shots can be retrieved for it.")
        sides.append([example.prompt.media[-1] for example in side])
    distinct = list(dict.fromkeys(medium for side in sides for medium in side))
    documents = [Document([medium]) for medium in distinct]  # type: ignore[list-item]
    vectors = torch.nn.functional.normalize(model.embed(documents, progress=progress), dim=-1)
    row = dict(zip(distinct, vectors, strict=True))
    of_queries, of_support = (torch.stack([row[medium] for medium in side]) for side in sides)
    return of_queries @ of_support.t()


def baselines(
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    similarity: Float[Tensor, "queries support"] | None = None,
) -> dict[str, Figures]:
    """Baselines without a model: the most frequent answer, and the answer to the most similar image.

    Retrieval has none, because ranks cannot be guessed; nor have queries without targets.
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
    """The ground truth in the form of a prediction; None if it means nothing for other examples, as an index does."""
    if isinstance(example.target, Label):
        return example.target.name
    if isinstance(example.target, Value):
        return example.target.number
    return None if example.choices else reference_text(example)


def mean_figures(scored: Sequence[Figures]) -> Figures:
    """Means over seeds. The interval of a proportion is that of the mean proportion; other intervals are averaged.

    ``answered`` is reported only by seeds in which a prediction lacks a number; for other seeds it is 1.
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
