"""Retrieval: every image is scored with every text, by comparing them or by the likelihood of a text given an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Matches, Progress, Ranks
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.prefix import NOTHING, Prefix
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
    prefixes: Sequence[Prefix] = (NOTHING,),
) -> list[Prediction]:
    """Ranks of each text's image and of each image's best text.

    Args:
        model: it matches or ranks.
        task: gives the predictions their form.
        examples: pairs of an image and its texts.
        way: ``match`` or ``rank``.
        batch_size: images at a time that texts are ranked for; it changes nothing but the time.
        progress: called with (pairs or images done, of how many).
        prefixes: shots before the images that texts are ranked for, in each of several orders.
    """
    images, texts, _ = sides(examples)
    queries = [Document([image], name=image.name) for image in images]
    if way == "match":
        assert isinstance(model, Matches)
        scores = model.match_all(images, texts, progress=progress)
    else:
        assert isinstance(model, Ranks)
        queries = [model.prompts.render(Example(query.name, query)) for query in queries]
        scores = likelihoods(model, queries, texts, batch_size, progress, prefixes)
    prompts = [*texts, *(prefixes[0].text + shown(query) for query in queries)]
    ranked = task.ranked(examples, scores.numpy())
    return [replace(prediction, prompt=prompt) for prediction, prompt in zip(ranked, prompts, strict=True)]


def likelihoods(
    model: Ranks,
    prompts: Sequence[Document],
    texts: Sequence[str],
    batch_size: int = 16,
    progress: Progress | None = None,
    prefixes: Sequence[Prefix] = (NOTHING,),
) -> Float[Tensor, "images texts"]:
    """The log-likelihood of each text after the prompt of each image, less that of the text with the image taken away;
    a mean over several orders of shots.

    The difference leaves the order of images for a text as it is; for an image it keeps short and common texts from
    coming first whatever the image shows.
    """
    total = torch.zeros(len(prompts), len(texts))
    for prefix in prefixes:
        seen = model.rank(prompts, texts, batch_size, prefix.state, progress)
        (blind,) = model.rank([prompts[0].without_media()], texts, state=prefix.state)
        rows = [[score.log_likelihood for score in row] for row in seen]
        total += torch.tensor(rows) - torch.tensor([score.log_likelihood for score in blind])
    return total / len(prefixes)


class Shortlisted:
    """A model that scores only the pairs that a faster one chose: of each text its best images, of each image its best
    texts.

    Args:
        model: it compares images with texts.
        faster: so does this one.
        size: how many candidates of each.

    Raises:
        UserError: the faster model compares nothing.
    """

    def __init__(self, model: Any, faster: Any, size: int):
        if not isinstance(faster, Matches):
            raise UserError(f"--shortlist: is a {type(faster).__name__}, which compares no images with texts.")
        self.model: Any = model
        self.faster: Any = faster
        self.size = size

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """As the model."""
        return self.model.why_unreadable(media)

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """For both models."""
        return sum(model.prepare(examples, progress) for model in (self.model, self.faster))

    def why_unmatched(self) -> str | None:
        """As the model."""
        return self.model.why_unmatched()

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Scores of the chosen pairs; minus infinity elsewhere."""
        rough = self.faster.match_all(images, texts)
        chosen = torch.from_numpy(shortlist(np.asarray(rough), self.size))
        chosen = chosen if candidates is None else chosen & candidates
        return self.model.match_all(images, texts, chosen, progress)
