"""Which key of another code's checkpoint is which of our tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vislang.errors import UserError


class ConversionError(UserError):
    """A configuration or a checkpoint that cannot be converted; the message lists why."""


@dataclass(frozen=True)
class Place:
    """Where a key's values stand among ours: a tensor, and of that one of ``parts`` equal slices of its rows."""

    name: str
    part: int = 0
    parts: int = 1

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The slice, a view."""
        whole = tensors[self.name]
        rows = len(whole) // self.parts if self.parts > 1 else 0
        return whole if self.parts == 1 else whole[self.part * rows : (self.part + 1) * rows]


Keys = dict[str, Place]
"""Their key -> our place."""
