"""Search that learns from marks: how right the results are after 0, 2, 4, 8 and 16 marks.

    python -m vislang.studies.corrections --seeds 0 1 2 --out docs/results/corrections

Twitter's emoji, which the dual encoder has not seen, are searched for the names of their subgroups, such as "food
fruit". An emoji is right if it is of the subgroup. Marks are drawn from the 40 best results of the text, five times
for each query; a draw of 8 marks contains that of 4. Marked emoji are not counted in any score, for any method.

Half of the subgroups, by the hash of their names, choose the settings of each method: those with the best mean of F1
and average precision over all numbers of marks. The figures are those of the other half, with 95 % intervals over
queries; the score of a query is its mean over draws and seeds.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vislang.console import console
from vislang.data.sets.emoji import Drawing, drawings
from vislang.document import Document
from vislang.metrics.figure import figures_as_json, figures_from_json, mean
from vislang.models.loading import load
from vislang.search.corrections import Prior, correct, spread
from vislang.studies.arms import command_line, trained
from vislang.studies.results import Results
from vislang.studies.retrieval import ARMS

MARKS = (0, 2, 4, 8, 16)
DRAWS = 5
SHOWN = 40
"""The best results of the text, of which some are marked."""

LEAST = 6
"""Emoji that a subgroup must have to be searched for."""

SCORES = ("precision", "recall", "f1", "average_precision")


class Search(NamedTuple):
    """A query with its marks.

    Attributes:
        query: (width,) vector of the text.
        vectors: (images, width) of all images.
        marked: rows that are marked.
        right: (marks,) whether each is right.
    """

    query: np.ndarray
    vectors: np.ndarray
    marked: np.ndarray
    right: np.ndarray


Settings = tuple[float, ...]
Method = Callable[[Search, Settings], np.ndarray]
"""Gives every image a score; those above 0 are shown."""


def text_alone(search: Search, settings: Settings) -> np.ndarray:
    """The similarity to the text, standardised over the images, above a cutoff. Marks are not used."""
    (cutoff,) = settings
    return _standard(search.vectors @ search.query) - cutoff


def nearest(search: Search, settings: Settings) -> np.ndarray:
    """The similarity to the nearest right image (or the text) minus that to the nearest wrong one, above a cutoff."""
    weight, cutoff = settings
    near = _standard(search.vectors @ search.query)
    marks = search.vectors @ search.vectors[search.marked].T
    right, wrong = marks[:, search.right], marks[:, ~search.right]
    if right.shape[1]:
        near = near + weight * right.max(axis=1)
    if wrong.shape[1]:
        near = near - weight * wrong.max(axis=1)
    return near - cutoff


def linear_probe(search: Search, settings: Settings) -> np.ndarray:
    """Logistic regression on the vectors of the marked images, which does not use the text."""
    return _corrected(search, prior_of((0.0, *settings)))


def marks_and_text(search: Search, settings: Settings) -> np.ndarray:
    """What ``vislang search`` does: the same regression with the similarity to the text as an offset."""
    return _corrected(search, prior_of(settings))


def prior_of(settings: Settings) -> Prior:
    """The assumptions of ``vislang search`` with these settings."""
    score_weight, bias, variance, cutoff = settings
    return Prior(score_weight=score_weight, bias=bias, variance=variance, cutoff=cutoff)


CUTOFFS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Least probabilities to choose from."""

METHODS: dict[str, tuple[Method, list[Settings]]] = {
    "text alone": (text_alone, [(cutoff,) for cutoff in np.arange(1.0, 4.1, 0.25).tolist()]),
    "nearest marked image": (
        nearest,
        list(product((1.0, 3.0, 10.0), np.arange(-2.0, 8.1, 1.0).tolist())),
    ),
    "linear probe": (linear_probe, list(product((-5.0, -3.0, -1.0), (3.0, 10.0, 30.0, 100.0), CUTOFFS))),
    "marks and text": (
        marks_and_text,
        list(product((1.0, 2.0, 3.0), (-6.0, -5.0, -4.0, -3.0), (3.0, 10.0, 30.0), CUTOFFS)),
    ),
}
"""Each method with the settings to choose from."""


@dataclass(frozen=True)
class Topic:
    """What is searched for.

    Attributes:
        text: the name of the subgroup.
        relevant: (images,) whether each image is of it.
        held: whether it is for choosing settings.
    """

    text: str
    relevant: np.ndarray
    held: bool


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Choose the settings, measure, and write ``results.json`` and ``table.md``."""
    results = Results(out)
    known = [drawing for drawing in drawings() if drawing.vendor == "twitter" and not drawing.variant]
    topics = topics_of(known)
    worlds = []
    for seed in seeds:
        model = load(trained(ARMS[0], ARMS, seed, runs) / "model")
        vectors = _unit(model.embed([Document([drawing.image], name=drawing.id) for drawing in known], 64))
        texts = _unit(model.embed([Document([topic.text], name=topic.text) for topic in topics], 64))
        worlds.append((vectors, texts))
    results.rows.clear()
    for name, (method, choices) in METHODS.items():
        chosen = max(
            choices, key=lambda settings: float(scores(topics, worlds, method, settings, True, 1)["f1"].mean())
        )
        console.print(f"{name}: {chosen}")
        for marks in MARKS:
            found = scores(topics, worlds, method, chosen, False, DRAWS, (marks,))
            figures = {score: mean(values.tolist()) for score, values in found.items()}
            results.add({"method": name, "settings": chosen, "marks": marks, "figures": figures_as_json(figures)})
    results.about = {"seeds": list(seeds), "images": len(known)}
    results.write()
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def quality(found: dict[str, np.ndarray]) -> float:
    """What settings are chosen by: the order as well as the cutoff."""
    return float(found["f1"].mean() + found["average_precision"].mean()) / 2


def topics_of(known: Sequence[Drawing]) -> list[Topic]:
    """The subgroups with enough emoji."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, drawing in enumerate(known):
        members[drawing.subgroup.replace("-", " ")].append(number)
    return [
        Topic(text, np.isin(np.arange(len(known)), rows), hashlib.sha256(text.encode()).digest()[0] % 2 == 0)
        for text, rows in sorted(members.items())
        if len(rows) >= LEAST
    ]


def scores(
    topics: Sequence[Topic],
    worlds: Sequence[tuple[np.ndarray, np.ndarray]],
    method: Method,
    settings: Settings,
    held: bool,
    draws: int,
    counts: Sequence[int] = MARKS[1:],
) -> dict[str, np.ndarray]:
    """The mean scores of each query over seeds, draws and numbers of marks.

    Args:
        topics: all queries.
        worlds: the vectors of images and of texts, for each seed.
        method, settings: what is scored.
        held: whether the queries for choosing settings are scored, or the others.
        draws: of marks.
        counts: numbers of marks.
    """
    found: dict[str, list[float]] = {score: [] for score in SCORES}
    for number, topic in enumerate(topics):
        if topic.held != held:
            continue
        rows = [
            score_of(method(search, settings), topic.relevant, search.marked)
            for vectors, texts in worlds
            for search in searches(topic, vectors, texts[number], draws, counts)
        ]
        for score, values in zip(SCORES, np.array(rows).mean(axis=0), strict=True):
            found[score].append(float(values))
    return {score: np.array(values) for score, values in found.items()}


def searches(
    topic: Topic, vectors: np.ndarray, query: np.ndarray, draws: int, counts: Sequence[int]
) -> Iterator[Search]:
    """A query with different marks."""
    best = np.argsort(-(vectors @ query), kind="stable")[:SHOWN]
    for draw in range(draws):
        drawn = np.random.default_rng([draw, *topic.text.encode()]).permutation(best)
        for count in counts:
            yield Search(query, vectors, drawn[:count], topic.relevant[drawn[:count]])


def score_of(values: np.ndarray, relevant: np.ndarray, marked: np.ndarray) -> tuple[float, ...]:
    """Precision, recall and F1 of what is shown, and the average precision of the order; without marked images."""
    kept = np.setdiff1d(np.arange(len(values)), marked)
    values, relevant = values[kept], relevant[kept]
    shown, wanted = values > 0, int(relevant.sum())
    hits = int((shown & relevant).sum())
    precision, recall = hits / max(1, int(shown.sum())), hits / max(1, wanted)
    f1 = 2 * hits / max(1, int(shown.sum()) + wanted)
    order = relevant[np.argsort(-values, kind="stable")]
    ranks = np.flatnonzero(order) + 1
    average = float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0
    return precision, recall, f1, average


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table: a row for each method and number of marks."""
    lines = ["| | marks | precision | recall | F1 | average precision |", "|---|---|---|---|---|---|"]
    for row in rows:
        figures = figures_from_json(row["figures"])
        cells = [
            f"{100 * own.value:.1f} ({100 * (own.low or 0):.1f} to {100 * (own.high or 0):.1f})"
            for own in (figures[score] for score in SCORES)
        ]
        lines.append(f"| {row['method']} | {row['marks']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _corrected(search: Search, prior: Prior) -> np.ndarray:
    sample = search.vectors[spread(len(search.vectors))]
    fitted = correct(search.query, search.vectors[search.marked], search.right, sample, prior)
    return search.vectors @ fitted.vector + fitted.constant - float(np.log(prior.cutoff / (1 - prior.cutoff)))


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def _unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).numpy()


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/corrections"), run)
