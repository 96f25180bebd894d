"""Few-shot evaluation: a model is scored with several examples (shots) in its prompt (Alayrac et al. 2022, section
4.2).

Every question is answered after several draws of shots and several orders of each draw, so that the score of a setting
has an interval and the sources of its variance are known (:mod:`vislang.metrics.variance`). Controls that could explain
the score are always measured with it: prompts without images, with the images or the answers of the shots shuffled
(:mod:`vislang.evaluate.shots`), and guesses without a model (:mod:`vislang.evaluate.few_shot_baselines`). Random shots
are the same for all queries of a trial, so they are prefilled once.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vislang import notebook
from vislang.capabilities import Generates, Prefills, Progress, Ranks
from vislang.errors import UserError
from vislang.evaluate.abstain import Abstention, abstention
from vislang.evaluate.evaluation import Reporter, must_be_numbers, prepare, quietly
from vislang.evaluate.few_shot_baselines import ImageFeatures, baselines, from_shots
from vislang.evaluate.figure_rows import show_sd
from vislang.evaluate.generate import generate
from vislang.evaluate.rank import mean_of_orders, rank
from vislang.evaluate.retrieve import retrieve
from vislang.evaluate.shots import (
    TEXT_SHOTS,
    Select,
    Setting,
    Trial,
    Variant,
    drawn,
    is_shot,
    prefill,
    retrieved,
    varied,
)
from vislang.evaluate.verdict import Finding, verdict
from vislang.evaluate.ways import ways
from vislang.example import Example, Prediction
from vislang.metrics.figure import Figure, Figures, metric, share, show, title_of
from vislang.metrics.variance import Component, Spread, spread
from vislang.tasks.retrieval import Retrieval
from vislang.tasks.task import Task

MOST_COMPARED = 10_000
"""Most images among which the baseline looks for the most similar one; of more, so many are drawn."""


@dataclass(frozen=True)
class Point:
    """The results of a setting.

    Attributes:
        setting: how the queries were answered.
        predictions: the predictions of each trial.
        figures: the figures of each trial; empty if the queries have no targets.
        means: the means over trials. The main metric has an interval over draws, orders and questions, the others the
            mean of the trials' intervals, which are over questions alone.
        metric: the metric of single predictions.
        scores: the scores of single predictions, (draws, orders, predictions).
        spread: where the variance of their mean comes from.
        shots: the ids of the shots of each trial, in order; empty if each query has its own.
        abstention: when to answer, whatever the draw and order; only of plain settings, if that was asked.
    """

    setting: Setting
    predictions: dict[Trial, list[Prediction]] = field(repr=False)
    figures: dict[Trial, Figures]
    means: Figures
    metric: str = ""
    scores: np.ndarray | None = field(default=None, repr=False)
    spread: Spread | None = None
    shots: dict[Trial, list[str]] = field(default_factory=dict, repr=False)
    abstention: Abstention | None = None

    @property
    def draws(self) -> dict[int, Figures]:
        """The mean figures of each draw over its orders."""
        by_draw: dict[int, list[Figures]] = defaultdict(list)
        for trial, figures in self.figures.items():
            by_draw[trial.draw].append(figures)
        return {draw: mean_figures(own) for draw, own in by_draw.items()}

    @property
    def orders(self) -> int:
        """The number of orders of each draw."""
        return 1 + max(trial.order for trial in self.predictions)

    def by_draw(self) -> list[list[list[Prediction]]]:
        """The predictions of each order of each draw."""
        found: dict[int, list[list[Prediction]]] = defaultdict(list)
        for trial, predictions in self.predictions.items():
            found[trial.draw].append(predictions)
        return list(found.values())

    def sources(self, name: str) -> list[Component | None]:
        """The standard deviations of a metric between draws, orders and samples of questions; None where they were not
        measured, as for all but the main metric."""
        if self.spread is None or name != self.metric:
            return [None] * 3
        return [self.spread.draws, self.spread.orders, self.spread.questions]


@dataclass(frozen=True)
class FewShotEvaluation:
    """A few-shot evaluation.

    Attributes:
        points: the results of each setting and control.
        baselines: the figures of guesses from the whole support, by name.
        verdict: what the shots are worth, and whether their images matter.
    """

    HEADINGS = ("shots", "selection", "metric", "mean (95 % interval)", "sd: draws", "orders", "questions")

    points: list[Point]
    baselines: dict[str, Figures]
    verdict: list[Finding]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The figures of all settings and baselines as text, under :attr:`HEADINGS`."""
        for point in self.points:
            for name, figure in point.means.items():
                sds = [show_sd(name, source, interval=False) for source in point.sources(name)]
                shots, how = str(point.setting.shots), selection(point.setting)
                yield shots, how, metric(name).title, show(name, figure), *sds
        for baseline, figures in self.baselines.items():
            for name, figure in figures.items():
                yield "", title_of(baseline), metric(name).title, show(name, figure), "", "", ""

    def sentences(self) -> Iterator[str]:
        """The verdict, and from which confidence on to answer."""
        for finding in self.verdict:
            yield finding.text
        for point in self.points:
            if point.abstention is not None:
                yield f"{point.setting.shots} shots, {point.setting.select}: {point.abstention.in_words}"

    def _repr_html_(self) -> str:
        """The figures in a notebook, and the verdict."""
        shown = notebook.table("examples in the prompt", self.HEADINGS, self.rows())
        return notebook.block(shown, *(notebook.block(sentence) for sentence in self.sentences()))


def point_of(
    task: Task,
    queries: Sequence[Example],
    setting: Setting,
    predictions: Mapping[Trial, list[Prediction]],
    shots: Mapping[Trial, list[str]] | None = None,
) -> Point:
    """Score the predictions of a setting.

    Args:
        task: scores them.
        queries: the queries, in the order of the predictions.
        setting: how they were answered.
        predictions: the predictions of each trial; each draw has the same number of orders.
        shots: the ids of the shots of each trial.
    """
    own, named = dict(predictions), dict(shots or {})
    if not task.can_score(queries):
        return Point(setting, own, {}, {}, shots=named)
    figures = {trial: task.score(queries, found) for trial, found in own.items()}
    items = {trial: task.score_each(queries, found) for trial, found in own.items()}
    draws = list(dict.fromkeys(trial.draw for trial in own))
    orders = list(dict.fromkeys(trial.order for trial in own))
    scores = np.stack([np.stack([items[Trial(draw, order)].scores for order in orders]) for draw in draws])
    found = next(iter(items.values()))
    made = spread(scores, task.clusters(queries), proportion=all(each.binary for each in items.values()))
    means = mean_figures(list(figures.values()))
    if found.metric in means:
        means[found.metric] = made.mean
    return Point(setting, own, figures, means, found.metric, scores, made, named)


def evaluate_point(
    model: Any,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    setting: Setting,
    draws: Sequence[int],
    similarity: Float[Tensor, "queries support"] | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
    orders: int = 1,
    answered: dict[Any, list[Prediction]] | None = None,
) -> Point:
    """Answer every query after each order of each draw of shots, and score the answers.

    Args:
        model: it generates or ranks, and prefills.
        task: scores the predictions.
        support: examples that shots are chosen from; those that cannot serve as shots are ignored.
        queries: examples to answer; none of them is in the support.
        setting: how to prompt.
        draws: seeds of the draws of random shots; retrieved shots are not drawn.
        similarity: for retrieved shots, how similar the images of queries and support are; see
            :func:`~vislang.evaluate.few_shot_baselines.similarities`.
        batch_size: queries at a time.
        progress: called with (queries done, all queries).
        orders: number of orders of the shots of each draw.
        answered: predictions of earlier trials of the same queries, which are not repeated; this call adds its own.

    Raises:
        UserError: retrieved shots without ``similarity`` or for a retrieval task, or fewer examples than shots.
    """
    if setting.select == "retrieved" and setting.shots:
        if isinstance(task, Retrieval):
            raise UserError(f"{task.name}: all images share the same shots; use --select random.")
        if similarity is None:
            raise UserError("retrieved shots need the similarity of images.")
        draws = (0,)
    way = way_of(model, task)
    usable = [number for number, example in enumerate(support) if is_shot(example)]
    if (setting.shots or TEXT_SHOTS) > len(usable):
        raise UserError(
            f"{task.name} has {len(usable)} examples that can serve as shots, and {setting.shots or TEXT_SHOTS} are "
            f"needed (zero shots are {TEXT_SHOTS} examples without images)."
        )
    support = [support[number] for number in usable]
    similarity = None if similarity is None else similarity[:, usable]
    predictions: dict[Trial, list[Prediction]] = {}
    named: dict[Trial, list[str]] = {}
    answered = {} if answered is None else answered
    trials = list(_trials(support, setting, draws, orders, similarity))
    for number, (trial, shared, own) in enumerate(trials):

        def report(done: int, of: int, before: int = number) -> None:
            if progress is not None:
                progress((before * len(queries)) + round(len(queries) * done / of), len(queries) * len(trials))

        # Zero shots are texts, which other draws and orders may have as well.
        prompt = tuple(model.prompts.examples(shared)) if own is None else (setting, trial)
        key = (setting.variant == "blind", prompt)
        if key not in answered:
            answered[key] = _answers(model, task, queries, setting, way, shared, own, batch_size, report)
            must_be_numbers(answered[key])
        predictions[trial] = answered[key]
        if own is None:
            named[trial] = [shot.id for shot in shared]
    return point_of(task, queries, setting, predictions, named)


def _trials(
    support: Sequence[Example],
    setting: Setting,
    draws: Sequence[int],
    orders: int,
    similarity: Float[Tensor, "queries support"] | None,
) -> Iterator[tuple[Trial, list[Example], list[list[Example]] | None]]:
    """Each trial with the shots that all queries share, or those of each query."""
    if setting.select == "retrieved" and setting.shots:
        assert similarity is not None
        for order, own in enumerate(retrieved(support, similarity, setting.shots, orders)):
            seeded = [varied(shots, setting.variant, f"{query} {order}") for query, shots in enumerate(own)]
            yield Trial(0, order), [], seeded
        return
    for draw in draws:
        for order, shots in enumerate(drawn(support, setting.shots, draw, orders)):
            yield Trial(draw, order), varied(shots, setting.variant, f"{draw} {order}"), None


def _answers(
    model: Any,
    task: Task,
    queries: Sequence[Example],
    setting: Setting,
    way: Literal["rank", "generate"],
    shared: Sequence[Example],
    own: Sequence[Sequence[Example]] | None,
    batch_size: int,
    progress: Progress,
) -> list[Prediction]:
    blind = setting.variant == "blind"
    prefix = prefill(model, shared, blind)
    if isinstance(task, Retrieval):
        return retrieve(model, task, queries, "rank", batch_size, progress, prefix)
    answer = rank if way == "rank" else generate
    return answer(
        model, queries, task.labels, blind=blind, shots=own, prefix=prefix, batch_size=batch_size, progress=progress
    )


def settings_for(
    shots: Sequence[int], select: Sequence[Select], media: bool = True, blind: bool = True
) -> list[Setting]:
    """The settings of a few-shot curve: each number of shots with each selection, then the controls that prompt the
    model, with the first selection. Zero shots need no selection and are measured once.

    Args:
        shots: numbers of shots.
        select: how shots are chosen.
        media: whether queries and shots have images, which can be removed or shuffled.
        blind: whether prompts without images are a control.
    """
    numbers = sorted(set(shots))
    plain = [Setting(0)] * (0 in numbers) + [Setting(number, way) for way in select for number in numbers if number]
    controls: list[Setting] = []
    variants: list[Variant] = ["blind"] if media and blind else []
    variants += ["images_shuffled", "labels_shuffled"] if media else ["labels_shuffled"]
    for variant in variants:
        least = 0 if variant == "blind" else 2
        controls += [
            Setting(number, select[0] if number else "random", variant) for number in numbers if number >= least
        ]
    return [*plain, *controls]


def measure(
    model: Any,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    settings: Sequence[Setting],
    draws: int,
    orders: int = 1,
    selector: Any = None,
    abstain: float | None = None,
    reporter: Reporter = quietly,
) -> FewShotEvaluation:
    """Score a model in several settings, with the controls that need no prompt.

    Controls that prompt the model use the first order of each draw. No prompt is sent twice: the mean over orders is
    computed from their predictions, equal prompts of a trial are answered once, and where a shot is only an image and
    its answer, shuffling the images is shuffling the answers.

    Args:
        model, task, support, queries: see :func:`evaluate_point`.
        settings: how to prompt; see :func:`settings_for`.
        draws: how often random shots are drawn.
        orders: number of orders of each draw.
        selector: the model that compares images; None takes ``model`` itself.
        abstain: the largest share of given answers that may be wrong; see :mod:`vislang.evaluate.abstain`.
        reporter: shows progress.

    Raises:
        UserError: see :func:`evaluate_point`; or ``selector`` gives no vectors, or has nothing to compare.
    """
    retrieves = any(setting.select == "retrieved" for setting in settings)
    ranked = way_of(model, task) == "rank"
    with_images = all(example.prompt.media for example in (*queries, *support))
    compares = retrieves or (with_images and not isinstance(task, Retrieval))
    if selector is not None and not compares:
        raise UserError("--selector: there are no images to compare. Leave it out.")
    # Retrieval compares all examples; a baseline need not.
    few = retrieves or len(support) <= MOST_COMPARED
    pool = list(support) if few else random.Random(0).sample(list(support), MOST_COMPARED)
    prepare(model, [*queries, *pool] if compares and selector is None else queries, reporter)
    features = similarity = None
    if compares:
        features = ImageFeatures(model if selector is None else selector)
        with reporter("comparing images") as progress:
            vectors = features.of([*queries, *pool], progress)
        similarity = vectors[: len(queries)] @ vectors[len(queries) :].t()
    points: dict[Setting, Point] = {}
    answered: dict[Any, list[Prediction]] = {}
    for setting in settings:
        twin = replace(setting, variant="images_shuffled")
        if setting.variant == "labels_shuffled" and twin in points and not any(shot.text for shot in support):
            points[setting] = replace(points[twin], setting=setting)
            continue
        own_orders = orders if setting.variant == "plain" else 1
        with reporter(f"{setting.shots} shots, {selection(setting)}") as progress:
            points[setting] = evaluate_point(
                model,
                task,
                support,
                queries,
                setting,
                range(draws),
                # Otherwise it may cover a part of the support alone.
                similarity if retrieves else None,
                progress=progress,
                orders=own_orders,
                answered=answered,
            )
        if ranked and not isinstance(task, Retrieval) and points[setting].orders > 1:
            averaged = _averaged(task, queries, points[setting])
            points[averaged.setting] = averaged
    if features is not None and task.can_score(queries):
        for setting in [setting for setting in points if setting.variant == "plain"]:
            if setting.shots and setting.select == "random":
                for probed in _from_shots(task, support, queries, setting, range(draws), features):
                    points[probed.setting] = probed
    guesses = {**baselines(task, pool, queries, similarity), **baselines(task, support, queries)}
    return concluded(task, queries, list(points.values()), guesses, abstain)


def concluded(
    task: Task,
    queries: Sequence[Example],
    points: Sequence[Point],
    guesses: Mapping[str, list[Prediction]],
    abstain: float | None = None,
) -> FewShotEvaluation:
    """The evaluation with the figures of its baselines, its verdict, and the confidence from which on to answer."""
    if abstain is not None and task.can_score(queries):
        points = [
            replace(point, abstention=abstention(task, queries, point.by_draw(), abstain))
            if point.setting.variant == "plain"
            else point
            for point in points
        ]
    figures = {name: task.score(queries, own) for name, own in guesses.items()}
    if not task.can_score(queries):
        return FewShotEvaluation(list(points), figures, [])
    compared = [(point.setting, point.metric, point.scores) for point in points if point.scores is not None]
    scores = {name: task.score_each(queries, own).scores[None, None] for name, own in guesses.items()}
    return FewShotEvaluation(list(points), figures, verdict(compared, scores, task.clusters(queries)))


def _averaged(task: Task, queries: Sequence[Example], point: Point) -> Point:
    """Ranked answers by the mean log-likelihood over the orders of each draw."""
    by_draw: dict[int, list[list[Prediction]]] = defaultdict(list)
    for trial, predictions in point.predictions.items():
        by_draw[trial.draw].append(predictions)
    means = {Trial(draw, 0): mean_of_orders(own) for draw, own in by_draw.items()}
    shots = {trial: own for trial, own in point.shots.items() if trial.order == 0}
    return point_of(task, queries, replace(point.setting, variant="mean_of_orders"), means, shots)


def _from_shots(
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    setting: Setting,
    draws: Sequence[int],
    features: ImageFeatures,
) -> list[Point]:
    """The controls that know the images and answers of the same shots alone."""
    usable = [example for example in support if is_shot(example)]
    found: dict[str, dict[Trial, list[Prediction]]] = defaultdict(dict)
    named: dict[Trial, list[str]] = {}
    for draw in draws:
        (shots,) = drawn(usable, setting.shots, draw)
        named[Trial(draw, 0)] = [shot.id for shot in shots]
        for name, predictions in from_shots(task, shots, queries, features).items():
            found[name][Trial(draw, 0)] = predictions
    return [
        point_of(task, queries, replace(setting, variant=name), own, named)  # type: ignore[arg-type]
        for name, own in found.items()
    ]


def selection(setting: Setting) -> str:
    """How shots are chosen and used, for a table."""
    names = {"plain": "", "blind": ", without images", "mean_of_orders": ", mean of the orders"}
    return setting.select + names.get(setting.variant, f", {setting.variant.replace('_', ' ')}")


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


def mean_figures(scored: Sequence[Figures]) -> Figures:
    """Means over trials. The interval of a proportion is that of the mean proportion; other intervals are averaged.

    ``answered`` is reported only by trials in which a prediction lacks a number; for other trials it is 1.
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
