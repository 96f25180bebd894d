"""Answers by matching: the alternative whose caption matches its images best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vislang.capabilities import Matches, Progress
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.alternatives import captions
from vislang.example import Example, Prediction, Text
from vislang.prompt import shown

KEPT = 10
"""Captions of a pool that are recorded with their similarities, the best first."""


def match(
    model: Matches,
    examples: Sequence[Example],
    labels: Sequence[str] = (),
    pool: Sequence[str] = (),
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> list[Prediction]:
    """A prediction for each example. With several images, their mean similarity is the score.

    Args:
        model: a model that compares images with texts.
        examples: examples to answer.
        labels: the alternatives of examples without choices; the task phrases them as captions.
        pool: captions to choose from, for captioning.
        batch_size: examples at a time; it does not change the result.
        progress: called with (examples done, examples in all).

    Raises:
        UserError: the pool is empty for captioning, or an example has no image.
    """
    found: list[Prediction] = []
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        options = [_options(example, labels, pool) for example in part]
        images = list(dict.fromkeys(image for each in options for _, seen, _ in each for image in seen))
        texts = list(dict.fromkeys(text for each in options for _, _, text in each))
        column = {text: number for number, text in enumerate(texts)}
        row = {image: number for number, image in enumerate(images)}
        wanted = torch.zeros(len(images), len(texts), dtype=torch.bool)
        for each in options:
            for _, seen, text in each:
                wanted[[row[image] for image in seen], column[text]] = True
        scores = model.match_all(images, texts, None if bool(wanted.all()) else wanted)
        for example, each in zip(part, options, strict=True):
            values = [float(scores[[row[image] for image in seen], column[text]].mean()) for _, seen, text in each]
            answers = [answer for answer, _, _ in each]
            best = int(np.argmax(values))
            _, seen, text = each[best]
            kept = sorted(range(len(values)), key=lambda n: -values[n])[:KEPT] if pool else range(len(values))
            found.append(
                Prediction(
                    example.id,
                    answers[best],
                    tuple(answers[n] for n in kept),
                    tuple(values[n] for n in kept),
                    "similarity",
                    shown(Document([*seen, text])),
                )
            )
        if progress is not None:
            progress(len(found), len(examples))
    return found


def _options(
    example: Example, labels: Sequence[str], pool: Sequence[str]
) -> Sequence[tuple[int | str, tuple[Image, ...], str]]:
    if isinstance(example.target, Text):
        if not pool:
            raise UserError(f"{example.name}: there are no captions to choose from.")
        images = tuple(medium for medium in example.prompt.media if isinstance(medium, Image))
        return [(text, images, text) for text in pool]
    return captions(example, labels)


def pool_of(support: Sequence[Example]) -> list[str]:
    """The distinct reference captions of the support, from which a matching model chooses."""
    return list(
        dict.fromkeys(
            text for example in support if isinstance(example.target, Text) for text in example.target.references
        )
    )
