"""The shots of a prompt: drawn or retrieved, in several orders, and shuffled as a control."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Prefix
from vislang.document import Document, Medium
from vislang.evaluate.prefix import NOTHING, read
from vislang.example import Example, Text, reference_text
from vislang.prompt import as_generation

TEXT_SHOTS = 2
"""Number of examples without images in a zero-shot prompt."""

Select = Literal["random", "retrieved"]

Variant = Literal[
    "plain", "mean_of_orders", "blind", "images_shuffled", "labels_shuffled", "linear_probe", "most_similar_shot"
]
"""What is done with the shots:

* ``plain``: they are the prompt.
* ``mean_of_orders``: ranked answers by their mean log-likelihoods over all orders (section B.1.5).
* ``blind``: all media are removed from shots and query, and their positions kept.
* ``images_shuffled``: each shot has the media of another shot.
* ``labels_shuffled``: each shot has the answer of another shot.
* ``linear_probe``, ``most_similar_shot``: no model is prompted; see :mod:`vislang.evaluate.few_shot_baselines`.
"""


@dataclass(frozen=True)
class Setting:
    """How queries are answered.

    Attributes:
        shots: number of examples in the prompt. Zero shots are :data:`TEXT_SHOTS` examples without their images, as in
            the paper: they show the form of an answer.
        select: how they are chosen.
        variant: what is done with them.
    """

    shots: int
    select: Select = "random"
    variant: Variant = "plain"


class Trial(NamedTuple):
    """A draw of shots, and one of their orders. The first order is the one in which they were drawn."""

    draw: int
    order: int


def shots_of(examples: Sequence[Example]) -> list[Example]:
    """The examples that can serve as shots; see :func:`is_shot`."""
    return [example for example in examples if is_shot(example)]


def is_shot(example: Example) -> bool:
    """Whether an example can serve as a shot: it has a template and an answer in words."""
    return not example.wording.verbatim and reference_text(as_generation(example)) is not None


def drawn(support: Sequence[Example], count: int, draw: int, orders: int = 1) -> list[list[Example]]:
    """Random shots in several different orders; fewer orders if there are not as many.

    Args:
        support: examples that can serve as shots.
        count: number of shots; for 0, examples without their images.
        draw: seed of the draw and of the orders.
        orders: number of orders.
    """
    rng = random.Random(f"{count} {draw}")
    chosen = rng.sample(list(support), count or TEXT_SHOTS)
    return in_orders(chosen if count else [without_images(shot) for shot in chosen], orders, rng)


def retrieved(
    support: Sequence[Example], similarity: Float[Tensor, "queries support"], count: int, orders: int = 1
) -> list[list[list[Example]]]:
    """For each order and query, the shots with the most similar images; in the first order the most similar is last
    (RICES, Yang et al. 2021)."""
    nearest = similarity.topk(count, dim=-1).indices.flip(-1).tolist()
    each = [
        in_orders([support[index] for index in row], orders, random.Random(f"{count} {query}"))
        for query, row in enumerate(nearest)
    ]
    return [list(own) for own in zip(*each, strict=True)]


def in_orders(shots: list[Example], orders: int, rng: random.Random) -> list[list[Example]]:
    """The shots as they are, and in other random orders, all different."""
    found = {tuple(range(len(shots))): None}
    while len(found) < min(orders, math.factorial(len(shots))):
        found[tuple(rng.sample(range(len(shots)), len(shots)))] = None
    return [[shots[number] for number in order] for order in found]


def varied(shots: Sequence[Example], variant: Variant, seed: object) -> list[Example]:
    """The shots of a control. For ``images_shuffled`` and ``labels_shuffled``, a random cyclic permutation, so that no
    shot keeps its own (Sattolo 1986)."""
    if variant not in ("images_shuffled", "labels_shuffled") or len(shots) < 2:
        return list(shots)
    shots = [as_generation(shot) for shot in shots]
    rng = random.Random(f"{variant} {seed}")
    givers = list(shots)
    for last in range(len(givers) - 1, 0, -1):
        other = rng.randrange(last)
        givers[last], givers[other] = givers[other], givers[last]
    give = _with_media_of if variant == "images_shuffled" else _with_answer_of
    return [give(shot, giver) for shot, giver in zip(shots, givers, strict=True)]


def _with_media_of(shot: Example, giver: Example) -> Example:
    texts = [part for part in shot.prompt.parts if not isinstance(part, Medium)]
    media = [part for part in giver.prompt.parts if isinstance(part, Medium)]
    return replace(shot, prompt=Document([*media, *texts], name=shot.prompt.name))


def _with_answer_of(shot: Example, giver: Example) -> Example:
    answer = reference_text(giver)
    assert answer is not None
    return replace(shot, target=Text((answer,)), choices=())


def without_images(shot: Example) -> Example:
    """A shot without its media and their positions."""
    shot = as_generation(shot)
    parts = [part for part in shot.prompt.parts if not isinstance(part, Medium)]
    return replace(shot, prompt=Document(parts, name=shot.prompt.name))


def prefill(model: Any, shots: Sequence[Example], blind: bool = False) -> Prefix:
    """Shots that all queries share, as the model reads them; nothing without shots."""
    if not shots:
        return NOTHING
    document = Document(model.prompts.examples(shots))
    return read(model, document.without_media() if blind else document)
