"""Frozen features of documents, as the inputs of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vislang.capabilities import Embeds, EmbedsDepths, Progress
from vislang.document import Audio, Document
from vislang.errors import UserError

THIRDS = 3
"""Parts of a recording that are averaged separately, as in the baseline, to keep the order of sounds."""


def frozen_features(
    model: Any,
    documents: Sequence[Document],
    encoder: Literal["student", "teacher"] = "student",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Sets of features by name, each (documents, width).

    A model that embeds at several depths gives a set for each depth of :func:`depths_of`, and the probe chooses one on
    its training data. Other models give one set.

    Args:
        model: a model that embeds.
        documents: documents of one modality.
        encoder: student or teacher, for a model that has both.
        progress: called with (documents done, documents in all).

    Raises:
        UserError: the model gives no vectors, or has no teacher.
    """
    if isinstance(model, EmbedsDepths):
        parts = THIRDS if isinstance(documents[0].parts[0], Audio) else 1
        vectors = model.embed_at(documents, depths_of(model.depth), encoder=encoder, parts=parts, progress=progress)
        return {f"{depth} blocks": made.numpy() for depth, made in vectors.items()}
    if encoder != "student":
        raise UserError(f"--encoder {encoder}: a {type(model).__name__} has no teacher. Leave --encoder out.")
    if not isinstance(model, Embeds):
        raise UserError(f"a {type(model).__name__} gives no vectors, so it cannot be probed.")
    return {"embedding": model.embed(documents, progress=progress).numpy()}


def depths_of(blocks: int) -> list[int]:
    """The depths that a probe chooses from: half of the blocks, all but one, and all. Lower depths were never best.

    >>> depths_of(6)
    [3, 5, 6]
    """
    return sorted({(blocks + 1) // 2, max(1, blocks - 1), blocks})
