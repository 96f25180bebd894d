"""Guess the next tokens from the prompt: answers repeat the form of the examples before them.

Where the last tokens of a text occurred before, those that followed them there are a guess of what comes next (prompt
look-up; "Inference with Reference", Yang et al. 2023). The model reads the whole guess in one pass and keeps its
beginning as far as it would have generated the same tokens (Leviathan et al. 2023), so the text is the same with fewer
passes.
"""

from __future__ import annotations

from collections.abc import Set

CONTEXTS = (3, 2)
"""Numbers of last tokens that are looked for; the longer context first."""


def draft(ids: list[int], most: int, excluded: Set[int]) -> list[int]:
    """A guess of the tokens that follow.

    >>> draft([5, 6, 7, 8, 9, 1, 5, 6], 3, {9})
    [7, 8]

    Args:
        ids: the tokens of the prompt and of the text.
        most: greatest number of tokens.
        excluded: tokens before which a guess ends.

    Returns:
        The tokens after the latest earlier occurrence of the last tokens; empty if there is none.
    """
    for context in CONTEXTS if most > 0 else ():
        last = ids[-context:]
        for start in range(len(ids) - context - 1, -1, -1):
            if ids[start : start + context] == last:
                found = ids[start + context : start + context + most]
                end = next((place for place, token in enumerate(found) if token in excluded), len(found))
                return found[:end]
    return []
