"""The beginning that many prompts share: shots, which are read once."""

from __future__ import annotations

from typing import Any, NamedTuple


class Prefix(NamedTuple):
    """What a model reads before each of several prompts.

    Attributes:
        state: the decode state from :meth:`~vislang.capabilities.Prefills.prefill`; None if there is no prefix.
        text: the prefix as one line of text, to record it.
    """

    state: Any = None
    text: str = ""


NOTHING = Prefix()
