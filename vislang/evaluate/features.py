"""Frozen features: what a model makes of documents, as the inputs of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vislang.capabilities import Embeds, EmbedsDepths, Progress
from vislang.document import Audio, Document
from vislang.errors import UserError

THIRDS = 3
"""Parts of a recording that are averaged separately, as in the baseline: the order of its sounds makes a word."""


def frozen_features(
    model: Any,
    documents: Sequence[Document],
    encoder: Literal["student", "teacher"] = "student",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """The vectors of documents, by a name for each set of them: (documents, width).

    A model that embeds at several depths gives a set for each depth of :func:`depths_of`, and the probe chooses one
    inside its training part. Other models give one set.

    Args:
        model: it embeds.
        documents: all of one modality.
        encoder: whose vectors, for a model with a student and a teacher.
        progress: called with (documents done, of how many).

    Raises:
        UserError: the model gives no vectors, or has no teacher.
    """
    if isinstance(model, EmbedsDepths):
        parts = THIRDS if isinstance(documents[0].parts[0], Audio) else 1
        vectors = model.embed_at(documents, depths_of(model.depth), encoder=encoder, parts=parts, progress=progress)
        return {f"{depth} blocks": made.numpy() for depth, made in vectors.items()}
    if encoder != "student":
        raise UserError(f"--encoder {encoder}: this {type(model).__name__} has no teacher; leave it out.")
    if not isinstance(model, Embeds):
        raise UserError(f"a probe needs vectors, and this {type(model).__name__} gives none.")
    return {"embedding": model.embed(documents, progress=progress).numpy()}


def depths_of(blocks: int) -> list[int]:
    """The depths that a probe chooses among: half of the blocks, all but one, and all. Less than half was never best.

    >>> depths_of(6)
    [3, 5, 6]
    """
    return sorted({(blocks + 1) // 2, max(1, blocks - 1), blocks})
