"""How well documents fit a query, by whatever the model can do: a similarity, or the likelihood of a text.

``vislang search --rerank``, ``POST /v1/search`` and ``POST /v1/rerank`` compare in this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vislang.capabilities import Embeds, Matches, Progress, Ranks
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.base import must_be_numbers

AT_ONCE = 16
"""Documents that are embedded between two items of :func:`embedded`."""

Kind = Literal["similarity", "log_likelihood", "probability"]
"""What a score is. A log-likelihood is in nats per token; a probability follows from marks."""


class NotComparable(UserError):
    """The model cannot compare such documents."""


class Relevance(NamedTuple):
    """The score of each document, higher is better."""

    kind: Kind
    scores: list[float]


def text_of(document: Document) -> str | None:
    """The text of a document that consists of one."""
    (part,) = document.parts
    return part if isinstance(part, str) else None


def image_of(document: Document) -> Image | None:
    """The image of a document that consists of one."""
    (part,) = document.parts
    return part if isinstance(part, Image) else None


def relevance(
    model: Any, name: str, query: Document, documents: Sequence[Document], progress: Progress | None = None
) -> Iterator[Relevance]:
    """How well each document fits a query; the last item is whole.

    An image and a text are compared, or the text is ranked by its likelihood after the image. Of one text and several
    images, all likelihoods are of the same tokens, so what is likely anyway has no effect on the order. Two of a kind
    are compared by the cosine of their vectors.

    Args:
        model: compares, ranks or embeds.
        name: its name, for messages.
        query: a text or an image.
        documents: one text or one image each.
        progress: called with (documents done, documents in all), if the model ranks or embeds.

    Raises:
        NotComparable: the model does not compare what is given.
        UserError: a text is too long, or a score is not a number.
        MediaError: an image cannot be decoded.
    """
    image, text = image_of(query), text_of(query) or ""
    texts = [each for document in documents if (each := text_of(document)) is not None]
    images = [own for document in documents if (own := image_of(document)) is not None]
    across = len(texts if image is not None else images) == len(documents)
    if across and isinstance(model, Matches) and model.why_unmatched() is None:
        scores = (model.match_all([image], texts) if image is not None else model.match_all(images, [text])).flatten()
        must_be_numbers(scores, name)
        yield Relevance("similarity", scores.tolist())
    elif across and isinstance(model, Ranks):
        shown = [query] if image is not None else documents
        prompts = [model.prompts.render(Example(own.name, own)) for own in shown]
        ranked = model.rank(prompts, texts if image is not None else [text], progress=progress)
        flat = ranked[0] if image is not None else [own for (own,) in ranked]
        yield Relevance("log_likelihood", [score.log_likelihood / score.tokens for score in flat])
    elif (not texts if image is not None else not images) and isinstance(model, Embeds):
        for vectors in embedded(model, name, [query, *documents]):
            unit = torch.nn.functional.normalize(vectors, dim=-1)
            if progress is not None:
                progress(max(0, len(unit) - 1), len(documents))
            yield Relevance("similarity", (unit[1:] @ unit[0]).tolist())
    else:
        raise NotComparable(f"a {type(model).__name__} does not compare these")


def embedded(model: Embeds, name: str, documents: Sequence[Document]) -> Iterator[Tensor]:
    """Vectors (documents, width) of documents, in parts; yields all that are done after each.

    Args:
        model: embeds.
        name: its name, for messages.
        documents: what is embedded.

    Raises:
        UserError: the model's output is not a number.
    """
    done: list[Tensor] = []
    for start in range(0, len(documents), AT_ONCE):
        done.append(model.embed(documents[start : start + AT_ONCE]))
        vectors = torch.cat(done).float()
        must_be_numbers(vectors, name)
        yield vectors
