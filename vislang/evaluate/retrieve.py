"""Retrieval: every image is scored with every text, by comparing them or by the likelihood of a text given an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vislang.capabilities import Matches, Progress, Ranks
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.rank import States
from vislang.evaluate.ways import Way
from vislang.example import Example, Prediction
from vislang.tasks.retrieval import Retrieval, shortlist, sides


def retrieve(
    model: Any,
    task: Retrieval,
    examples: Sequence[Example],
    way: Way,
    batch_size: int = 16,
    progress: Progress | None = None,
    states: States = (None,),
) -> list[Prediction]:
    """Ranks of each text's image and of each image's best text.

    Args:
        model: it matches or ranks.
        task: gives the predictions their form.
        examples: pairs of an image and its texts.
        way: ``match`` or ``rank``.
        batch_size: images at a time that texts are ranked for; it changes nothing but the time.
        progress: called with (pairs or images done, of how many).
        states: what was prefilled before the images that texts are ranked for.
    """
    images, texts, _ = sides(examples)
    if way == "match":
        assert isinstance(model, Matches)
        scores = model.match_all(images, texts, progress=progress)
    else:
        assert isinstance(model, Ranks)
        scores = likelihoods(model, images, texts, batch_size, progress, states)
    return task.ranked(examples, scores.numpy())


def likelihoods(
    model: Ranks,
    images: Sequence[Image],
    texts: Sequence[str],
    batch_size: int = 16,
    progress: Progress | None = None,
    states: States = (None,),
) -> Float[Tensor, "images texts"]:
    """The log-likelihood of each text given each image, less that of the text with the image taken away; a mean over
    the states of several orders of shots.

    The difference leaves the order of images for a text as it is; for an image it keeps short and common texts from
    coming first whatever the image shows.
    """
    asked = [Example(image.name, Document([image], name=image.name)) for image in images]
    prompts = [model.prompts.render(example) for example in asked]
    total = torch.zeros(len(images), len(texts))
    for state in states:
        seen = model.rank(prompts, texts, batch_size, state, progress)
        (blind,) = model.rank([prompts[0].without_media()], texts, state=state)
        rows = [[score.log_likelihood for score in row] for row in seen]
        total += torch.tensor(rows) - torch.tensor([score.log_likelihood for score in blind])
    return total / len(states)


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
