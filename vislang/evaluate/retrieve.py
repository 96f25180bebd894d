"""Retrieval: score every image with every text, by matching or by the likelihood of the text after the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Matches, Prefix, Progress, Ranks
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.prefix import NOTHING
from vislang.evaluate.ways import Way
from vislang.example import Example, Prediction
from vislang.prompt import shown
from vislang.tasks.retrieval import Retrieval, shortlist, sides


def retrieve(
    model: Any,
    task: Retrieval,
    examples: Sequence[Example],
    way: Way,
    batch_size: int = 16,
    progress: Progress | None = None,
    prefix: Prefix = NOTHING,
) -> list[Prediction]:
    """Ranks of each text's image and of each image's best text.

    Args:
        model: a model that matches or ranks.
        task: the task; it turns scores into predictions.
        examples: pairs of an image and its texts.
        way: ``match`` or ``rank``.
        batch_size: for ranking, images at a time; it does not change the result.
        progress: called with (pairs or images done, all of them).
        prefix: for ranking, the shots before each image.
    """
    images, texts, _ = sides(examples)
    queries = [Document([image], name=image.name) for image in images]
    if way == "match":
        assert isinstance(model, Matches)
        scores = model.match_all(images, texts, progress=progress)
    else:
        assert isinstance(model, Ranks)
        follows = not prefix.is_empty
        queries = [model.prompts.render(Example(query.name, query), after_shots=follows) for query in queries]
        scores = likelihoods(model, queries, texts, batch_size, progress, prefix)
    prompts = [*texts, *(prefix.text + shown(query) for query in queries)]
    ranked = task.ranked(examples, scores.numpy())
    return [replace(prediction, prompt=prompt) for prediction, prompt in zip(ranked, prompts, strict=True)]


def likelihoods(
    model: Ranks,
    prompts: Sequence[Document],
    texts: Sequence[str],
    batch_size: int = 16,
    progress: Progress | None = None,
    prefix: Prefix = NOTHING,
) -> Float[Tensor, "images texts"]:
    """The log-likelihood of each text after the prompt of each image, minus that of the text without an image.

    The difference does not change the ranking of images for a text. For an image, it prevents short and common texts
    from always being ranked first.
    """
    seen = model.rank(prompts, texts, batch_size, prefix.state, progress)
    (blind,) = model.rank([prompts[0].without_media()], texts, state=prefix.state)
    rows = torch.tensor([[score.log_likelihood for score in row] for row in seen])
    return rows - torch.tensor([score.log_likelihood for score in blind])


class Shortlisted:
    """A model that scores only the candidates of a faster model: the best images of each text and the best texts of
    each image.

    Args:
        model: a model that compares images with texts.
        faster: a faster one, which selects the candidates.
        size: number of candidates for each text and each image.

    Raises:
        UserError: the faster model cannot compare images with texts.
    """

    def __init__(self, model: Any, faster: Any, size: int):
        if not isinstance(faster, Matches):
            raise UserError(f"--shortlist: a {type(faster).__name__} cannot compare images with texts.")
        self.model: Any = model
        self.faster: Any = faster
        self.size = size

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """That of the model."""
        return self.model.why_unreadable(media)

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Prepare both models."""
        return sum(model.prepare(examples, progress) for model in (self.model, self.faster))

    def why_unmatched(self) -> str | None:
        """That of the model."""
        return self.model.why_unmatched()

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """The scores of the candidates; minus infinity for other pairs."""
        rough = self.faster.match_all(images, texts)
        chosen = torch.from_numpy(shortlist(np.asarray(rough), self.size))
        chosen = chosen if candidates is None else chosen & candidates
        return self.model.match_all(images, texts, chosen, progress)
