"""Image and text retrieval: recall at 1, 5 and 10 in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from vislang.errors import UserError
from vislang.metrics.figure import Figures, share

LIMITS = (1, 5, 10)

METRICS = tuple(f"recall_at_{n}_{way}" for way in ("text_to_image", "image_to_text") for n in LIMITS)


def belonging(texts: Sequence[str], image_of: Sequence[int], images: int) -> Bool[np.ndarray, "images texts"]:
    """Which texts belong to which images; a text also belongs to the images of equal texts.

    Args:
        texts: captions.
        image_of: for each text the index of its image.
        images: how many images there are.
    """
    by_text: dict[str, set[int]] = {}
    for text, image in zip(texts, image_of, strict=True):
        by_text.setdefault(text.strip().lower(), set()).add(image)
    found = np.zeros((images, len(texts)), dtype=bool)
    for number, text in enumerate(texts):
        found[list(by_text[text.strip().lower()]), number] = True
    return found


def rank_of(scores: np.ndarray, correct: np.ndarray) -> int:
    """The rank, from 1, of the best correct candidate.

    Ties are ranked before it. Minus infinity (a pair that was not scored) is ranked last.
    """
    best = scores[correct].max()
    if np.isneginf(best):
        return len(scores)
    return int((scores[~correct] >= best).sum()) + 1


def ranks(
    scores: Float[np.ndarray, "images texts"], correct: Bool[np.ndarray, "images texts"]
) -> tuple[np.ndarray, np.ndarray]:
    """For each text the rank of its best image, (texts,); and for each image that of its best text, (images,).

    Raises:
        UserError: a score is not a number.
    """
    if np.isnan(scores).any():
        raise UserError("retrieval: some scores are not numbers (NaN); the model's weights are damaged.")
    of_texts, of_images = (
        np.array([rank_of(row, known) for row, known in zip(rows, truth, strict=True)], dtype=int)
        for rows, truth in ((scores.T, correct.T), (scores, correct))
    )
    return of_texts, of_images


def recalls_at(of_texts: Sequence[int] | np.ndarray, of_images: Sequence[int] | np.ndarray) -> Figures:
    """Recall at 1, 5 and 10 from the ranks that :func:`ranks` gives."""
    sides = (("text_to_image", np.asarray(of_texts)), ("image_to_text", np.asarray(of_images)))
    return {
        f"recall_at_{limit}_{way}": share(int((found <= limit).sum()), len(found))
        for way, found in sides
        for limit in LIMITS
    }
