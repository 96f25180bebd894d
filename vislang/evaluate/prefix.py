"""What many prompts begin with: shots that all questions share are read once."""

from __future__ import annotations

from typing import Any, NamedTuple


class Prefix(NamedTuple):
    """What a model has read before the prompts that it is sent.

    Attributes:
        state: what :meth:`~vislang.capabilities.Prefills.prefill` gave; None where nothing was read.
        text: the same as one line of text, for the record.
    """

    state: Any = None
    text: str = ""


NOTHING = Prefix()
